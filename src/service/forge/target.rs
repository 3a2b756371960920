//! What a verification is about: the repository, the workflow and the branch, checked before anything is asked.

use super::VerifyError;
use crate::model::VerifyPublish;

/// What a step's texts mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) owner: String,
    pub(super) name: String,
    /// The workflow's file name.
    pub(super) file: String,
    /// The directory, where the step names one.
    pub(super) dir: Option<String>,
    pub(super) git_ref: GitRef,
}

/// A branch or a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GitRef {
    pub(super) short: String,
    pub(super) tag: bool,
}

impl GitRef {
    /// With `refs/heads/` or `refs/tags/` before it: a short name that is wrong is answered with a silent 500.
    pub(super) fn full(&self) -> String {
        let kind = if self.tag { "tags" } else { "heads" };
        format!("refs/{kind}/{}", self.short)
    }

    /// For a sentence.
    pub(super) fn shown(&self) -> String {
        format!("{} `{}`", if self.tag { "tag" } else { "branch" }, self.short)
    }
}

impl Target {
    pub(super) fn new(spec: &VerifyPublish) -> Result<Self, VerifyError> {
        let (owner, name) = repository(&spec.repo)?;
        let (dir, file) = match spec.workflow.rsplit_once('/') {
            Some((dir, file)) => (Some(dir.to_owned()), file),
            None => (None, spec.workflow.as_str()),
        };
        let stem = file.strip_suffix(".yml").or_else(|| file.strip_suffix(".yaml"));
        if stem.is_none_or(str::is_empty) || !is_word(file) {
            return Err(bad(&format!("`{}` is not the file name of a workflow (`NAME.yml`)", spec.workflow)));
        }
        Ok(Self { owner, name, file: file.to_owned(), dir, git_ref: git_ref(&spec.git_ref)? })
    }

    /// `owner/name`.
    pub(super) fn repo(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The path of an endpoint of the repository.
    pub(super) fn path<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        let mut path = vec!["api", "v1", "repos", self.owner.as_str(), self.name.as_str()];
        path.extend_from_slice(rest);
        path
    }
}

/// Reads `owner/name`.
pub(super) fn repository(text: &str) -> Result<(String, String), VerifyError> {
    match text.split_once('/') {
        Some((owner, name)) if is_word(owner) && is_word(name) => Ok((owner.to_owned(), name.to_owned())),
        _ => Err(bad(&format!("`{text}` is not of the form `owner/name`"))),
    }
}

fn git_ref(text: &str) -> Result<GitRef, VerifyError> {
    let (short, tag) = match (text.strip_prefix("refs/heads/"), text.strip_prefix("refs/tags/")) {
        (Some(short), _) => (short, false),
        (_, Some(short)) => (short, true),
        _ => (text, false),
    };
    let odd = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with('.');
    let illegal = |c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c);
    if short.starts_with("refs/") || short.split('/').any(odd) || short.contains("..") || short.contains(illegal) {
        return Err(bad(&format!("`{text}` is not the name of a branch")));
    }
    Ok(GitRef { short: short.to_owned(), tag })
}

fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text != "." && text != ".." && text.chars().all(plain)
}

fn bad(reason: &str) -> VerifyError {
    VerifyError::Spec(crate::service::http::clean(reason))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn target(repo: &str, workflow: &str, git_ref: &str) -> Result<Target, VerifyError> {
        Target::new(&VerifyPublish {
            repo: repo.to_owned(),
            workflow: workflow.to_owned(),
            git_ref: git_ref.to_owned(),
            image: None,
            timeout: Duration::from_secs(1),
            inputs: std::collections::BTreeMap::new(),
            on: crate::model::PublishOn::Any,
            runner: None,
            job: None,
            runner_log: None,
            pushed_by: None,
        })
    }

    #[test]
    fn short_and_full_names() {
        let plain = target("owner/repo", "docker-publish.yml", "main").unwrap();
        assert_eq!(plain.git_ref.full(), "refs/heads/main");
        assert_eq!(plain.path(&["actions", "runs"]).join("/"), "api/v1/repos/owner/repo/actions/runs");
        let full = target("owner/repo", ".forgejo/workflows/x.yaml", "refs/heads/release/1.0").unwrap();
        assert_eq!((full.git_ref.short.as_str(), full.file.as_str()), ("release/1.0", "x.yaml"));
        assert_eq!(full.dir.as_deref(), Some(".forgejo/workflows"));
        assert_eq!(target("o/r", "x.yml", "refs/tags/v1").unwrap().git_ref.full(), "refs/tags/v1");
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for repo in ["repo", "o/r/x", "../r", "o/..", "o/", "/r", "o/r?x", "o/r#", "o r/x", "o/%2e%2e"] {
            assert!(target(repo, "x.yml", "main").is_err(), "{repo}");
        }
        for workflow in ["", "x", ".yml", "x.yml?a", "../", "a b.yml"] {
            assert!(target("o/r", workflow, "main").is_err(), "{workflow}");
        }
        for git_ref in ["", "a..b", "../x", "a//b", "refs/pull/1/head", "a b", "a:b", "x/.", "refs/heads/"] {
            assert!(target("o/r", "x.yml", git_ref).is_err(), "{git_ref}");
        }
    }
}
