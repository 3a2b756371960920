//! Which server it is, and what this version can do.
//!
//! Behaviour is chosen by the version that the server names, never by trying an endpoint and seeing it fail.

use std::fmt;

/// The two servers that speak this API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Forgejo.
    Forgejo,
    /// Gitea.
    Gitea,
}

/// A server's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    /// Which server.
    pub product: Product,
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The numbers as the server wrote them, without what follows a `+` or `-`.
    pub text: String,
}

/// How a run that was just dispatched becomes known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DispatchReply {
    /// `return_run_info` in the body, answered with `id` and `run_number`.
    RunInfo,
    /// `return_run_details` in the query, answered with `workflow_run_id`.
    RunDetails,
    /// Nothing is said: the run is looked for.
    Silent,
}

/// Where the state of a run is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunSource {
    /// `/actions/runs`, in Forgejo's words.
    Forgejo,
    /// `/actions/runs`, in Gitea's words (`status` and `conclusion`).
    Gitea,
    /// `/actions/tasks`: only what a runner has taken already.
    Tasks,
}

/// What a version can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    pub(super) reply: DispatchReply,
    pub(super) runs: RunSource,
    /// A run can be cancelled.
    pub(super) cancel: bool,
    /// A run's jobs can be listed.
    pub(super) jobs: bool,
    /// A job's log can be read.
    pub(super) job_log: bool,
    /// Waiting and running jobs can be listed, by an owner of the repository.
    pub(super) open_jobs: bool,
    /// Runners can be listed, by an owner of the repository.
    pub(super) runners: bool,
}

impl ServerVersion {
    /// Reads `15.0.3+gitea-1.22.0` (Forgejo) or `1.24.6` (Gitea).
    pub(super) fn parse(product: Product, text: &str) -> Option<Self> {
        let numbers = text.trim().trim_start_matches('v');
        let numbers = numbers.split(['+', '-', ' ']).next()?;
        let mut parts = numbers.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        if !parts.all(|part| part.parse::<u32>().is_ok()) {
            return None;
        }
        Some(Self { product, major, minor, text: numbers.to_owned() })
    }

    /// What this version can do, or `None` when it cannot dispatch and correlate at all.
    pub(super) fn abilities(&self) -> Option<Abilities> {
        match self.product {
            Product::Forgejo => {
                let since = |major| self.major >= major;
                since(11).then(|| Abilities {
                    reply: DispatchReply::RunInfo,
                    runs: if since(12) { RunSource::Forgejo } else { RunSource::Tasks },
                    cancel: since(16),
                    jobs: since(16),
                    job_log: since(16),
                    open_jobs: true,
                    runners: since(15),
                })
            }
            Product::Gitea => {
                let since = |minor| self.major > 1 || self.minor >= minor;
                since(24).then(|| Abilities {
                    reply: if since(26) { DispatchReply::RunDetails } else { DispatchReply::Silent },
                    runs: if since(25) { RunSource::Gitea } else { RunSource::Tasks },
                    cancel: false,
                    jobs: since(25),
                    job_log: since(24),
                    open_jobs: false,
                    runners: true,
                })
            }
        }
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let product = match self.product {
            Product::Forgejo => "Forgejo",
            Product::Gitea => "Gitea",
        };
        write!(f, "{product} {}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_servers_write_them() {
        let forgejo = |text| ServerVersion::parse(Product::Forgejo, text).map(|v| (v.major, v.minor, v.to_string()));
        assert_eq!(forgejo("15.0.3+gitea-1.22.0"), Some((15, 0, "Forgejo 15.0.3".to_owned())));
        assert_eq!(forgejo("16.0.0-dev-120-abcdef0+gitea-1.22.0"), Some((16, 0, "Forgejo 16.0.0".to_owned())));
        assert_eq!(forgejo("main"), None);
        assert_eq!(forgejo(""), None);
        assert_eq!(forgejo("12.x.\u{1b}[2J"), None);
        let gitea = ServerVersion::parse(Product::Gitea, "1.24.6").unwrap();
        assert_eq!(gitea.to_string(), "Gitea 1.24.6");
    }

    #[test]
    fn abilities_follow_the_version() {
        let of = |product, text| ServerVersion::parse(product, text).unwrap().abilities();
        assert_eq!(of(Product::Forgejo, "10.0.0"), None);
        assert_eq!(of(Product::Gitea, "1.23.0"), None);
        let runs = |product, text| of(product, text).unwrap().runs;
        assert_eq!(runs(Product::Forgejo, "11.0.0"), RunSource::Tasks);
        assert_eq!(runs(Product::Forgejo, "12.0.0"), RunSource::Forgejo);
        assert_eq!(runs(Product::Gitea, "1.24.0"), RunSource::Tasks);
        assert_eq!(runs(Product::Gitea, "1.25.0"), RunSource::Gitea);
        assert!(!of(Product::Forgejo, "15.0.3").unwrap().cancel);
        assert!(of(Product::Forgejo, "16.0.0").unwrap().cancel);
        assert_eq!(of(Product::Gitea, "1.26.0").unwrap().reply, DispatchReply::RunDetails);
        assert_eq!(of(Product::Gitea, "2.0.0").unwrap().reply, DispatchReply::RunDetails);
    }
}
