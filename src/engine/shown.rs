//! The lines that a step has shown, for one that runs twice: what comes again is not shown again.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// Lines that are remembered; those after them are shown in both runs.
const MOST: usize = 1 << 16;

/// What has been shown.
#[derive(Default)]
pub struct Shown {
    lines: VecDeque<u64>,
    again: bool,
}

impl Shown {
    /// The step begins anew.
    pub fn again(&mut self) {
        self.again = true;
    }

    /// Whether a line is to be shown. From the first one on that is another than before all are.
    pub fn is_new(&mut self, line: &str) -> bool {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(line);
        if !self.again {
            if self.lines.len() < MOST {
                self.lines.push_back(hash);
            }
            return true;
        }
        let known = self.lines.pop_front() == Some(hash);
        if !known {
            self.lines.clear();
        }
        !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_not_shown_again() {
        let mut shown = Shown::default();
        let mut run = |lines: &[&str]| -> Vec<String> {
            let new = lines.iter().filter(|line| shown.is_new(line)).map(|line| line.to_string()).collect();
            shown.again();
            new
        };
        assert_eq!(run(&["a", "b", "b", "c"]), ["a", "b", "b", "c"]);
        assert_eq!(run(&["a", "b", "x", "c", "d"]), ["x", "c", "d"]);
    }
}
