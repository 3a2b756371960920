//! Property runs that say what they did: how many inputs, and what became of them. Only for tests.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestRunner};

/// Inputs that are drawn as proptest's environment says: `PROPTEST_CASES` of them.
pub(crate) struct Fuzz {
    what: &'static str,
}

impl Fuzz {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what }
    }

    /// Tries `check` with inputs, and prints how often it said which word. A panic is shrunk and fails the test.
    pub(crate) fn run<S: Strategy>(&self, inputs: &S, check: impl Fn(S::Value) -> &'static str) {
        let said: RefCell<BTreeMap<&str, u32>> = RefCell::default();
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
        let ran = runner.run(inputs, |input| {
            let word = check(input);
            *said.borrow_mut().entry(word).or_default() += 1;
            Ok(())
        });
        let said = said.into_inner();
        let words: Vec<String> = said.iter().map(|(word, count)| format!("{count} {word}")).collect();
        let panics = u32::from(ran.is_err());
        println!(
            "{}: {} inputs, {panics} panics, {}",
            self.what,
            said.values().sum::<u32>() + panics,
            words.join(", ")
        );
        if let Err(fault) = ran {
            panic!("{}: {fault}", self.what);
        }
    }
}
