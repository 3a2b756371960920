//! Playbook and facts to a plan; pure.
