//! Whether the sockets of several generations can share an address here, with a selector between them.

use baton_sys::intercept::is_passing;
use baton_sys::selector;

use crate::log;

/// What is known of it.
#[derive(Debug, Default)]
pub struct Sharing(Option<Result<(), String>>);

impl Sharing {
    /// Why they cannot, if they cannot. Found out before it is needed for the first time, and said then.
    pub fn refused(&mut self) -> Option<&str> {
        if self.0.is_none() {
            self.0 = match selector::probe() {
                Ok(()) => Some(Ok(())),
                // Opening a listener will tell what there is too little of.
                Err(error) if is_passing(&error.source) => None,
                Err(error) => {
                    let why = log::chain(&error);
                    log::say(format_args!(
                        "this system does not let generations share an address ({why}): the bootloader accepts at \
                         their listeners with a port, and forwards"
                    ));
                    Some(Err(why))
                }
            };
        }
        self.why()
    }

    /// The same, as far as it was found out.
    pub fn why(&self) -> Option<&str> {
        self.0.as_ref()?.as_ref().err().map(String::as_str)
    }
}
