//! Names and ids that appear in paths, journals and on the screen.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name or id that keyswap will not use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{text}` {why}")]
pub struct BadName {
    what: &'static str,
    text: String,
    why: &'static str,
}

/// The inventory's name for a host. It is not an address: two names may lead to one machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = |why| Err(BadName { what: "host name", text: text.to_owned(), why });
        if text.is_empty() {
            return bad("is empty");
        }
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
            return bad("may hold only letters, digits, `.`, `-` and `_`");
        }
        if text.starts_with(['-', '.']) {
            return bad("may not start with `-` or `.`");
        }
        Ok(Self(text.to_owned()))
    }
}

/// The id of one run: UTC time to the second, then random hex, so that ids sort by age and a person can say them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// A new id for a run that starts now.
    #[must_use]
    pub fn new(now: jiff::Timestamp) -> Self {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let tail: String = random.chars().take(3).collect();
        // The part of the second stands first, so that ids sort by age also within it: "the latest run" is the latest.
        let part = u64::from(now.subsec_nanosecond().unsigned_abs()) * 4096 / 1_000_000_000;
        Self(format!("{}-{part:03x}{tail}", now.strftime("%Y%m%d-%H%M%S")))
    }

    /// The id as text: only digits, lower-case hex and `-`, so it needs no quoting anywhere.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let shape = text.len() == 22
            && text.bytes().enumerate().all(|(i, b)| match i {
                8 | 15 => b == b'-',
                0..=14 => b.is_ascii_digit(),
                _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
            });
        if shape {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadName { what: "run id", text: text.to_owned(), why: "is not of the form 20260102-030405-a1b2c3" })
        }
    }
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

text_newtype!(HostName);
text_newtype!(RunId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_id_round_trips_and_refuses_other_shapes() {
        let at = |ms| RunId::new(jiff::Timestamp::from_millisecond(ms).unwrap());
        assert!(at(1_000) < at(1_001) && at(1_998) < at(1_999) && at(1_999) < at(2_000), "ids sort by age");
        let id = RunId::new(jiff::Timestamp::UNIX_EPOCH);
        assert!(id.as_str().starts_with("19700101-000000-"));
        assert_eq!(id.as_str().parse::<RunId>(), Ok(id.clone()));
        for bad in ["", "19700101-000000-", "19700101-000000-ABCDEF", "../../../../../../etc/x"] {
            assert!(bad.parse::<RunId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names_that_could_be_taken_for_options_or_paths_are_refused() {
        for bad in ["", "-oProxyCommand=x", "../x", "a b", "a/b", "a\n"] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
        }
        assert!("runner-01.example_net".parse::<HostName>().is_ok());
    }
}
