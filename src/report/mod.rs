//! Folds of events for people and programs.
