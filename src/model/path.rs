//! Absolute paths on a target.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An absolute path on a target: no NUL, no control character, no `.` or `..` component, no trailing slash.
///
/// `..` is resolved by name when the path is read, so that what is shown is what is used; the host refuses a
/// path whose components are links that root does not own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RemotePath(String);

/// A path that cannot be used on a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// The path does not start at the root.
    #[error("path `{0}` is not absolute")]
    Relative(String),
    /// The path holds a control character.
    #[error("path {0:?} holds a control character")]
    Control(String),
    /// The path is the root itself, or climbs above it.
    #[error("path `{0}` names no file")]
    NoFile(String),
}

impl RemotePath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that holds it; `/` for a top-level name.
    #[must_use]
    pub fn parent(&self) -> &str {
        match self.0.rfind('/') {
            Some(0) | None => "/",
            Some(at) => self.0.get(..at).unwrap_or("/"),
        }
    }

    /// The last component.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl FromStr for RemotePath {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<Self, BadPath> {
        if text.chars().any(char::is_control) {
            return Err(BadPath::Control(text.to_owned()));
        }
        if !text.starts_with('/') {
            return Err(BadPath::Relative(text.to_owned()));
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    if parts.pop().is_none() {
                        return Err(BadPath::NoFile(text.to_owned()));
                    }
                }
                other => parts.push(other),
            }
        }
        if parts.is_empty() {
            return Err(BadPath::NoFile(text.to_owned()));
        }
        Ok(Self(format!("/{}", parts.join("/"))))
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for RemotePath {
    type Error = BadPath;

    fn try_from(text: String) -> Result<Self, BadPath> {
        text.parse()
    }
}

impl From<RemotePath> for String {
    fn from(path: RemotePath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_by_name() {
        let path: RemotePath = "/srv/runner/data/../runner.env".parse().unwrap();
        assert_eq!(
            (path.as_str(), path.parent(), path.file_name()),
            ("/srv/runner/runner.env", "/srv/runner", "runner.env")
        );
        assert_eq!("/a".parse::<RemotePath>().unwrap().parent(), "/");
        for bad in ["", "a", "/", "/..", "/a\nb", "/a/../.."] {
            assert!(bad.parse::<RemotePath>().is_err(), "{bad:?}");
        }
    }
}
