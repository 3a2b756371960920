//! The values of a run's secrets, and those that come only when its plan was accepted.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::SecretName;
use crate::secret::SecretValue;

/// The values of the run's secrets. Of one that is still to come, planning knows that it will be another one than any
/// that is there.
#[derive(Debug, Clone, Default)]
pub struct Values {
    known: BTreeMap<SecretName, SecretValue>,
    to_come: BTreeSet<SecretName>,
}

impl Values {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A value is there.
    pub fn insert(&mut self, name: SecretName, value: SecretValue) {
        self.to_come.remove(&name);
        self.known.insert(name, value);
    }

    /// A value will be there before any host is touched.
    pub fn expect(&mut self, name: SecretName) {
        self.to_come.insert(name);
    }

    /// A value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&SecretValue> {
        self.known.get(name)
    }

    /// Whether a value is still to come.
    #[must_use]
    pub fn is_to_come(&self, name: &str) -> bool {
        self.to_come.contains(name)
    }

    /// Whether any value is still to come.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.to_come.is_empty()
    }

    /// All that are there, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&SecretName, &SecretValue)> {
        self.known.iter()
    }
}
