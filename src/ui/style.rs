//! Colour, or none.

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// Paints words, or leaves them as they are.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    on: bool,
}

impl Style {
    /// No colour.
    pub const PLAIN: Style = Style { on: false };

    /// `refused` is the environment's say (NO_COLOR, a dumb terminal); the flag is stronger.
    pub fn choose(choice: ColorChoice, refused: bool, terminal: bool) -> Style {
        Style {
            on: match choice {
                ColorChoice::Auto => terminal && !refused,
                ColorChoice::Always => true,
                ColorChoice::Never => false,
            },
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// For names and headings.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// For what matters less.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Wrong.
    pub fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// Good.
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Look here.
    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// What to do.
    pub fn cyan(self, text: &str) -> String {
        self.paint("36", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_stronger_than_the_environment() {
        let on = |choice, refused, terminal| Style::choose(choice, refused, terminal).on;
        assert!(on(ColorChoice::Auto, false, true));
        assert!(!on(ColorChoice::Auto, true, true) && !on(ColorChoice::Auto, false, false));
        assert!(on(ColorChoice::Always, true, false) && !on(ColorChoice::Never, false, true));
        assert_eq!(Style::PLAIN.red("x"), "x");
    }
}
