//! What the driver of a test tells the load generator, as lines of text.

use baton_core::units::Millis;

use super::plan::Target;

/// One thing that the driver of a test knows and the load generator cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// `forbid RELEASE`: it must never answer, neither before nor after this.
    Forbid {
        /// The release.
        release: String,
    },
    /// `committed TARGET RELEASE`: connections begun after this are answered by that release alone, until `open`.
    Committed {
        /// The member's address.
        target: Target,
        /// The release.
        release: String,
    },
    /// `open TARGET`: any release may answer there again. To be heard before a deploy is proposed.
    Open {
        /// The member's address.
        target: Target,
    },
    /// `window TARGET begin`: its program is about to be killed. To be heard before the kill.
    WindowBegins {
        /// The member's address.
        target: Target,
    },
    /// `window TARGET end`: its program is dead.
    WindowEnds {
        /// The member's address.
        target: Target,
    },
    /// `window TARGET FROM_MS TO_MS`: its program died between these moments (milliseconds since the Unix epoch).
    Window {
        /// The member's address.
        target: Target,
        /// The last moment when it was known to live.
        from: Millis,
        /// The first moment when it was known to be dead.
        to: Millis,
    },
    /// `away TARGET begin`: the whole member is about to be killed, and nobody will be there. To be heard before the kill.
    AwayBegins {
        /// The member's address.
        target: Target,
    },
    /// `away TARGET end`: its program serves again.
    AwayEnds {
        /// The member's address.
        target: Target,
    },
    /// `handover begin`: latencies are those during a handover from now on.
    HandoverBegins,
    /// `handover end`: latencies are those between handovers again.
    HandoverEnds,
    /// `stop`: begin no further request, and end when all under way have ended.
    Stop,
}

/// A line that says nothing the load generator knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misheard {
    /// The words make no sense.
    #[error(
        "not understood: say 'forbid RELEASE', 'committed TARGET RELEASE', 'open TARGET', \
         'window TARGET begin', 'window TARGET end', 'window TARGET FROM_MS TO_MS', 'away TARGET begin', \
         'away TARGET end', 'handover begin', 'handover end' or 'stop'"
    )]
    Words,
    /// The target gets no load, so what is said about it can never matter.
    #[error("{target} is not a target of this load")]
    UnknownTarget {
        /// As it was said.
        target: String,
    },
}

impl Said {
    /// Understands one line, given the targets there are.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn parse(line: &str, targets: &[Target]) -> Result<Self, Misheard> {
        let known = |name: &str| {
            let found = targets.iter().find(|target| target.as_str() == name);
            found.cloned().ok_or_else(|| Misheard::UnknownTarget { target: name.into() })
        };
        let moment = |text: &str| text.parse().map(Millis).map_err(|_| Misheard::Words);
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words[..] {
            ["forbid", release] => Self::Forbid { release: release.into() },
            ["committed", target, release] => {
                Self::Committed { target: known(target)?, release: release.into() }
            }
            ["open", target] => Self::Open { target: known(target)? },
            ["window", target, "begin"] => Self::WindowBegins { target: known(target)? },
            ["window", target, "end"] => Self::WindowEnds { target: known(target)? },
            ["window", target, from, to] => {
                Self::Window { target: known(target)?, from: moment(from)?, to: moment(to)? }
            }
            ["away", target, "begin"] => Self::AwayBegins { target: known(target)? },
            ["away", target, "end"] => Self::AwayEnds { target: known(target)? },
            ["handover", "begin"] => Self::HandoverBegins,
            ["handover", "end"] => Self::HandoverEnds,
            ["stop"] => Self::Stop,
            _ => return Err(Misheard::Words),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_understood_or_refused() {
        let target: Target = "127.0.0.1:8080".parse().unwrap();
        let targets = [target.clone()];
        for (line, said) in [
            ("forbid r1", Said::Forbid { release: "r1".into() }),
            (
                " committed  127.0.0.1:8080 r2\n",
                Said::Committed { target: target.clone(), release: "r2".into() },
            ),
            ("open 127.0.0.1:8080", Said::Open { target: target.clone() }),
            ("window 127.0.0.1:8080 begin", Said::WindowBegins { target: target.clone() }),
            ("window 127.0.0.1:8080 end", Said::WindowEnds { target: target.clone() }),
            ("away 127.0.0.1:8080 begin", Said::AwayBegins { target: target.clone() }),
            ("away 127.0.0.1:8080 end", Said::AwayEnds { target: target.clone() }),
            ("window 127.0.0.1:8080 10 20", Said::Window { target, from: Millis(10), to: Millis(20) }),
            ("handover begin", Said::HandoverBegins),
            ("handover end", Said::HandoverEnds),
            ("stop", Said::Stop),
        ] {
            assert_eq!(Said::parse(line, &targets), Ok(said), "{line:?}");
        }
        for line in
            ["", "forbid", "forbid a b", "stop now", "window 127.0.0.1:8080", "window 127.0.0.1:8080 1 x"]
        {
            assert_eq!(Said::parse(line, &targets), Err(Misheard::Words), "{line:?}");
        }
        let other = Said::parse("open 127.0.0.1:1", &targets);
        assert_eq!(other, Err(Misheard::UnknownTarget { target: "127.0.0.1:1".into() }));
    }
}
