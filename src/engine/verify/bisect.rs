//! The smallest set of variations that makes a step differ: delta debugging (Zeller and Hildebrandt, 2002).

use crate::error::Result;

/// A subset of `all` for which `differs` holds and of which no element can be left out. `differs` is known to
/// hold for `all`; the empty set is tried first. What differs by chance gives a set that is too small or too
/// large.
pub fn minimise<T: Copy + PartialEq>(
    all: &[T],
    differs: &mut dyn FnMut(&[T]) -> Result<bool>,
) -> Result<Vec<T>> {
    if differs(&[])? {
        return Ok(Vec::new());
    }
    let mut set = all.to_vec();
    let mut pieces = 2;
    while set.len() > 1 {
        let size = set.len().div_ceil(pieces);
        let mut smaller = None;
        for piece in set.chunks(size) {
            if differs(piece)? {
                smaller = Some((piece.to_vec(), 2));
                break;
            }
        }
        if smaller.is_none() && pieces > 2 {
            for piece in set.chunks(size) {
                let rest: Vec<T> = set.iter().copied().filter(|item| !piece.contains(item)).collect();
                if differs(&rest)? {
                    smaller = Some((rest, pieces - 1));
                    break;
                }
            }
        }
        match smaller {
            Some((found, next)) => (set, pieces) = (found, next),
            None if pieces >= set.len() => break,
            None => pieces = (pieces * 2).min(set.len()),
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(culprits: &[u32]) -> (Vec<u32>, usize) {
        let all: Vec<u32> = (0..16).collect();
        let mut count = 0;
        let found = minimise(&all, &mut |set| {
            count += 1;
            Ok(culprits.iter().all(|culprit| set.contains(culprit)))
        });
        (found.unwrap(), count)
    }

    #[test]
    fn one_culprit_is_found_in_few_rounds() {
        for culprit in 0..16 {
            let (found, count) = run(&[culprit]);
            assert_eq!(found, [culprit]);
            assert!(count <= 9, "{count} rounds");
        }
    }

    #[test]
    fn culprits_that_work_together_are_found_together() {
        assert_eq!(run(&[3, 12]).0, [3, 12]);
        assert_eq!(run(&[0, 1, 15]).0, [0, 1, 15]);
        assert_eq!(run(&[]), (vec![], 1));
    }

    #[test]
    fn errors_end_the_search() {
        assert!(minimise(&[1, 2], &mut |_| Err(crate::Error::machine("x"))).is_err());
    }
}
