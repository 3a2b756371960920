//! What can be looked at before a dispatch, so that the server's silent refusals never have to be guessed at.

use super::image::{Image, Pushed};
use super::target::Target;
use super::version::{Abilities, DispatchReply, Product, RunSource, ServerVersion};
use super::{ForgeClient, NotReady, VerifyError, wire};
use crate::model::VerifyPublish;
use crate::service::http::{HttpError, Method, Request, clean};

/// What a repository looks like before a dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// The server and its version.
    pub server: ServerVersion,
    /// The full name of the branch or tag.
    pub git_ref: String,
    /// The commit there.
    pub commit: String,
    /// The workflow's path at that commit.
    pub workflow: String,
    /// Things worth knowing that do not stand in the way.
    pub notes: Vec<String>,
}

/// All that was found before a dispatch.
pub(super) struct Look {
    pub(super) preflight: Preflight,
    pub(super) target: Target,
    pub(super) abilities: Abilities,
    /// The image that must be pushed, and what is there now.
    pub(super) image: Option<(Image, Option<Pushed>)>,
    /// The workflow declares [`NONCE`].
    pub(super) takes_nonce: bool,
    /// The labels that its jobs ask for, as far as they can be read.
    pub(super) labels: Vec<String>,
}

/// The input by which a run can be told from every other one, where the workflow declares it.
pub(super) const NONCE: &str = "keyswap_nonce";

impl ForgeClient {
    /// Asks which server it is. Only Forgejo has an API of that name; Gitea answers 404 there.
    pub(super) async fn detect(&self) -> Result<ServerVersion, HttpError> {
        let own = Request::new(Method::Get, &["api", "forgejo", "v1", "version"]);
        if let Some(version) = self.get_if_there::<wire::Version>(&own).await? {
            return parsed(Product::Forgejo, &version);
        }
        let common = Request::new(Method::Get, &["api", "v1", "version"]);
        let version: wire::Version = self.api().send(&common).await?.json()?;
        let product = if version.version.contains("+gitea-") { Product::Forgejo } else { Product::Gitea };
        parsed(product, &version)
    }

    /// Looks at everything that a dispatch needs; changes nothing.
    pub(super) async fn look(&self, spec: &VerifyPublish) -> Result<Look, VerifyError> {
        let target = Target::new(spec)?;
        let image = spec.image.as_deref().map(|image| Image::of(image, &self.url)).transpose()?;
        self.need_token()?;
        let server = self.detect().await.map_err(VerifyError::asking)?;
        let Some(abilities) = server.abilities() else {
            return Err(VerifyError::NotReady(NotReady::TooOld { version: server.to_string() }));
        };
        let mut notes = Vec::new();
        self.repository(&target, &mut notes).await?;
        let commit = self.commit(&target).await?;
        let workflow = self.workflow(&target, server.product, &commit).await?;
        let text = self.workflow_text(&target, &workflow, &commit).await;
        if text.as_deref().is_some_and(|text| !text.contains("workflow_dispatch")) {
            notes.push(format!("`{workflow}` does not seem to have the trigger `workflow_dispatch`"));
        }
        let text = text.unwrap_or_default();
        let (takes_nonce, labels) = (declares_nonce(&text), labels(&text));
        let silent = abilities.reply == DispatchReply::Silent && abilities.runs == RunSource::Tasks;
        if silent && spec.runner.is_none() {
            let why = "the step names no `runner` that could be seen idle before".to_owned();
            return Err(VerifyError::NotReady(NotReady::Unquiet { version: server.to_string(), why }));
        }
        let image = match image {
            Some(image) => {
                let before = self.pushed_before(&image).await?;
                Some((image, before))
            }
            None => None,
        };
        let preflight = Preflight { server, git_ref: target.git_ref.full(), commit, workflow, notes };
        Ok(Look { preflight, target, abilities, image, takes_nonce, labels })
    }

    async fn repository(&self, target: &Target, notes: &mut Vec<String>) -> Result<(), VerifyError> {
        let request = Request::new(Method::Get, &target.path(&[]));
        let found = self.get_if_there::<wire::Repository>(&request).await.map_err(VerifyError::asking)?;
        let repo = target.repo();
        let Some(found) = found else { return Err(VerifyError::NotReady(NotReady::NoRepo { repo })) };
        if found.archived {
            return Err(VerifyError::NotReady(NotReady::Archived { repo }));
        }
        if found.has_actions == Some(false) {
            return Err(VerifyError::NotReady(NotReady::ActionsOff { repo }));
        }
        if found.permissions.is_some_and(|permissions| !permissions.push) {
            notes.push(format!("the token's user may not push to `{repo}`; the dispatch may be refused"));
        }
        Ok(())
    }

    async fn commit(&self, target: &Target) -> Result<String, VerifyError> {
        let kind = if target.git_ref.tag { "tags" } else { "branches" };
        let mut path = target.path(&[kind]);
        path.extend(target.git_ref.short.split('/'));
        let request = Request::new(Method::Get, &path);
        let found = self.get_if_there::<wire::Branch>(&request).await.map_err(VerifyError::asking)?;
        let Some(found) = found else {
            let (repo, git_ref) = (target.repo(), target.git_ref.shown());
            return Err(VerifyError::NotReady(NotReady::NoRef { repo, git_ref }));
        };
        Ok(clean(&found.commit.id))
    }

    /// The workflow's own text. Only hints are taken from it, so what cannot be read is not missed.
    async fn workflow_text(&self, target: &Target, workflow: &str, commit: &str) -> Option<String> {
        let mut path = target.path(&["raw"]);
        path.extend(workflow.split('/'));
        let request = Request::new(Method::Get, &path).query("ref", commit);
        let reply = self.api().send(&request).await.ok()?;
        Some(String::from_utf8_lossy(reply.body()).into_owned())
    }

    /// Finds the workflow as the server will: in the first of the directories that exists, by its file name.
    async fn workflow(&self, target: &Target, product: Product, commit: &str) -> Result<String, VerifyError> {
        let dirs: &[&str] = match product {
            Product::Forgejo => &[".forgejo/workflows", ".gitea/workflows", ".github/workflows"],
            Product::Gitea => &[".gitea/workflows", ".github/workflows"],
        };
        let missing = |looked: String| {
            let (workflow, git_ref) = (target.file.clone(), target.git_ref.shown());
            VerifyError::NotReady(NotReady::NoWorkflow { workflow, git_ref, looked })
        };
        for dir in dirs {
            let mut path = target.path(&["contents"]);
            path.extend(dir.split('/'));
            let request = Request::new(Method::Get, &path).query("ref", commit);
            let entries = self.get_if_there::<Vec<wire::Entry>>(&request).await.map_err(VerifyError::asking)?;
            let Some(entries) = entries else { continue };
            if target.dir.as_deref().is_some_and(|wanted| wanted != *dir) {
                return Err(missing(format!("the server reads only `{dir}`, the first directory that is there")));
            }
            if !entries.iter().any(|entry| entry.name == target.file && entry.kind != "dir") {
                return Err(missing(format!("`{dir}` does not hold it, and later directories are not read")));
            }
            return Ok(format!("{dir}/{}", target.file));
        }
        Err(missing(format!("none of {} is there", dirs.join(", "))))
    }
}

/// Whether a workflow declares [`NONCE`] among its inputs.
fn declares_nonce(text: &str) -> bool {
    let key = |line: &str| {
        line.trim().trim_matches(['"', '\'']).strip_prefix(NONCE).map(|rest| rest.starts_with(['"', '\'', ':']))
    };
    text.lines().any(|line| key(line) == Some(true))
}

/// The labels in `runs-on`, on its line or as a list below it. An expression is none.
fn labels(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut add = |word: &str| {
        let word = word.trim().trim_matches(['"', '\'']);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !word.is_empty() && word.chars().all(plain) && !found.iter().any(|known| known == word) {
            found.push(word.to_owned());
        }
    };
    let mut below = false;
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if let Some(rest) = line.strip_prefix("runs-on:") {
            below = rest.trim().is_empty();
            rest.trim().trim_start_matches('[').trim_end_matches(']').split(',').for_each(&mut add);
        } else if let Some(item) = line.strip_prefix("- ").filter(|_| below) {
            add(item);
        } else {
            below = false;
        }
    }
    found
}

fn parsed(product: Product, version: &wire::Version) -> Result<ServerVersion, HttpError> {
    ServerVersion::parse(product, &version.version).ok_or_else(|| HttpError::Malformed {
        at: "the forge".to_owned(),
        reason: format!("`{}` is not a version", clean(&version.version)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_a_workflow() {
        let text = "jobs:\n  a:\n    runs-on: docker # here\n  b:\n    runs-on: [self-hosted, 'arm64']\n  c:\n    \
                    runs-on:\n      - big\n    steps:\n      - run: x\n  d:\n    runs-on: ${{ matrix.os }}\n";
        assert_eq!(labels(text), ["docker", "self-hosted", "arm64", "big"]);
    }

    #[test]
    fn a_nonce_is_a_key() {
        assert!(declares_nonce("inputs:\n  keyswap_nonce:\n    required: false"));
        assert!(!declares_nonce("# keyswap_nonce: no\n  keyswap_nonces:\n"));
    }
}
