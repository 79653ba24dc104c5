//! The terminal, or what stands in its place.

use std::io::{self, IsTerminal, Write};

use baton_wire::api::Refused;
use rustix::termios::tcgetwinsize;
use serde::Serialize;

use crate::args::Output;
use crate::failure::Failure;

/// The width of a terminal that does not tell.
const USUAL_WIDTH: usize = 80;
/// Narrower ones are treated as this wide: less is no use.
const LEAST_WIDTH: usize = 20;

/// A colour with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// As everything else.
    Plain,
    /// Good.
    Green,
    /// On its way.
    Cyan,
    /// At risk.
    Yellow,
    /// Bad.
    Red,
}

/// Whether colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// They are.
    With,
    /// They are not: nobody sees them, or somebody does not want them.
    Without,
}

impl Paint {
    /// The text in this colour.
    pub fn colour(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Plain => return text.to_owned(),
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Cyan => 36,
        };
        match self {
            Self::With => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Without => text.to_owned(),
        }
    }
}

/// Where results go and in which form.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    output: Output,
    terminal: bool,
    /// Whether and where colours are used.
    pub paint: Paint,
    /// The greatest width of a line; without limit where no terminal would break it.
    pub width: usize,
}

impl Ui {
    /// Standard output of this process. `no_color` is the variable `NO_COLOR`: set to anything but nothing, it
    /// means no colours.
    pub fn new(output: Output, no_color: Option<&std::ffi::OsStr>) -> Self {
        let terminal = io::stdout().is_terminal();
        let columns = || tcgetwinsize(rustix::stdio::stdout()).map_or(0, |size| usize::from(size.ws_col));
        let width = match terminal.then(columns) {
            None => usize::MAX,
            Some(0) => USUAL_WIDTH,
            Some(columns) => columns.max(LEAST_WIDTH),
        };
        let plain = !terminal || no_color.is_some_and(|value| !value.is_empty());
        let paint = if plain { Paint::Without } else { Paint::With };
        Self { output, terminal, paint, width }
    }

    /// The same without lines that are drawn again: others write in between.
    pub fn plain(self) -> Self {
        Self { terminal: false, ..self }
    }

    /// Whether what is on the screen can be drawn again.
    pub fn is_live(&self) -> bool {
        self.terminal && self.output == Output::Text
    }

    /// The result: as JSON, or as the text that is made of it.
    pub fn result<T: Serialize>(&self, result: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        match self.output {
            Output::Text => self.text(&text(result)),
            Output::Json => {
                let mut line = serde_json::to_string(result).map_err(io::Error::from)?;
                line.push('\n');
                Ok(write(&line)?)
            }
        }
    }

    /// Text for people only.
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        match self.output {
            Output::Text => Ok(write(text)?),
            Output::Json => Ok(()),
        }
    }

    /// What is wrong, on standard error: a sentence, or one JSON document.
    pub fn complain(&self, code: &str, message: &str) {
        let error = Refused { code: code.to_owned(), message: message.to_owned() };
        match self.output {
            Output::Text => say(&format!("baton: {message}")),
            Output::Json => say(&serde_json::to_string(&Complaint { error }).unwrap_or_default()),
        }
    }

    /// What people who wait want to know, on standard error.
    pub fn remark(&self, text: &str) {
        if self.output == Output::Text {
            say(&format!("baton: {text}"));
        }
    }
}

/// Writes a line to standard error. Where even that fails, the exit code is all that is left.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A failure as `--output json` has it.
#[derive(Serialize)]
struct Complaint {
    error: Refused,
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Lines at the bottom of the screen that are drawn again and again.
#[derive(Debug, Default)]
pub struct Live {
    lines: usize,
}

impl Live {
    /// Draws the lines over those of the last call. None may be wider than the terminal.
    pub fn draw(&mut self, ui: &Ui, text: &str) -> Result<(), Failure> {
        let over = self.over();
        self.lines = text.lines().count();
        ui.text(&format!("{over}{text}"))
    }

    /// Draws the lines a last time and leaves them there.
    pub fn keep(&mut self, ui: &Ui, text: &str) -> Result<(), Failure> {
        self.draw(ui, text)?;
        self.leave();
        Ok(())
    }

    /// Leaves the lines where they are: somebody else writes below them.
    pub fn leave(&mut self) {
        self.lines = 0;
    }

    /// What takes the cursor to the first of the lines and clears them.
    fn over(&self) -> String {
        match self.lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[0J"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_only_there_where_they_are_wanted() {
        assert_eq!(Paint::With.colour(Colour::Red, "no"), "\x1b[31mno\x1b[0m");
        assert_eq!(Paint::With.colour(Colour::Plain, "so"), "so");
        assert_eq!(Paint::Without.colour(Colour::Red, "no"), "no");
    }

    #[test]
    fn lines_are_drawn_over_those_before() {
        let mut live = Live::default();
        assert_eq!(live.over(), "");
        live.lines = 3;
        assert_eq!(live.over(), "\x1b[3A\x1b[0J");
    }
}
