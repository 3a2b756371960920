//! Whether a run pushed its image: the tag's row in the package registry before and after.
//!
//! Every push of a tag makes a new row, even for the digest that was there: "pushed again" and "still the old one"
//! differ by the row's id.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::registry::Served;
use super::run::RunView;
use super::{ForgeClient, NotReady, VerifyError, wire};
use crate::service::http::{HttpError, Method, Request, clean};

/// An image in the forge's registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    owner: String,
    name: String,
    tag: String,
}

/// One push of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The row's id.
    pub id: u64,
    /// When it was made, by the server's clock.
    pub created: Option<Timestamp>,
    /// The manifest's digest (`sha256:…`), where it can be read.
    pub digest: Option<String>,
    /// The account that pushed it.
    pub by: Option<String>,
}

/// A tag before and after a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageProof {
    /// `owner/name:tag`.
    pub image: String,
    /// What was there before; `None` when the tag was not there.
    pub before: Option<Pushed>,
    /// What is there now.
    pub after: Pushed,
    /// The registry itself serves it. `Err`: why it could not be asked.
    pub served: Result<(), String>,
}

#[derive(Debug, Deserialize)]
struct Row {
    id: u64,
    #[serde(default, deserialize_with = "wire::moment")]
    created_at: Option<Timestamp>,
    #[serde(default)]
    creator: Option<wire::User>,
}

#[derive(Debug, Deserialize)]
struct File {
    name: String,
    #[serde(default)]
    sha256: String,
}

/// A row is dated to the second, and a run's end is noted after its last push.
const SLACK: SignedDuration = SignedDuration::from_secs(2);

impl Image {
    /// Reads `owner/name:tag`. The forge's own address may stand before it; that of another registry is refused.
    pub(super) fn of(text: &str, forge: &str) -> Result<Self, VerifyError> {
        let address = forge.split_once("://").map_or(forge, |(_, rest)| rest);
        let address = address.split('/').next().unwrap_or_default();
        let (first, rest) = text.split_once('/').unwrap_or_default();
        if !address.is_empty() && first.eq_ignore_ascii_case(address) {
            return Self::parse(rest);
        }
        let elsewhere = rest.contains('/') && (first.contains(['.', ':']) || first == "localhost");
        if elsewhere {
            let (first, rest) = (clean(first), clean(rest));
            let message = format!(
                "`{first}` is the address of another registry than this forge's ({address}): give `{rest}`, if it is kept there"
            );
            return Err(VerifyError::Spec(message));
        }
        Self::parse(text)
    }

    /// Reads `owner/name:tag`, without a registry's address.
    pub(super) fn parse(text: &str) -> Result<Self, VerifyError> {
        let bad = || VerifyError::Spec(format!("`{}` is not of the form `owner/name:tag`", clean(text)));
        let (path, tag) = text.rsplit_once(':').ok_or_else(bad)?;
        let (owner, name) = path.split_once('/').ok_or_else(bad)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let word = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain);
        if !word(owner) || !name.split('/').all(word) || !word(tag) {
            return Err(bad());
        }
        // The registry keeps names and tags in lower case.
        Ok(Self { owner: owner.to_lowercase(), name: name.to_lowercase(), tag: tag.to_lowercase() })
    }
}

impl Image {
    /// The parts of its path in the registry, without the tag.
    pub(super) fn path(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.owner.as_str()).chain(self.name.split('/'))
    }

    /// Its tag.
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }
}

impl std::fmt::Display for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}:{}", self.owner, self.name, self.tag)
    }
}

impl ForgeClient {
    /// The tag's row; `None` when there is none.
    pub(super) async fn pushed(&self, image: &Image) -> Result<Option<Pushed>, HttpError> {
        let path = ["api", "v1", "packages", &image.owner, "container", &image.name, &image.tag];
        let Some(row) = self.get_if_there::<Row>(&Request::new(Method::Get, &path)).await? else {
            return Ok(None);
        };
        let files = [&path[..], &["files"]].concat();
        let files: Option<Vec<File>> = self.get_if_there(&Request::new(Method::Get, &files)).await?;
        let manifest = files.unwrap_or_default().into_iter().find(|file| file.name == "manifest.json");
        let digest = manifest.filter(|file| is_digest(&file.sha256)).map(|file| format!("sha256:{}", file.sha256));
        let by = row.creator.map(|creator| clean(&creator.login)).filter(|login| !login.is_empty());
        Ok(Some(Pushed { id: row.id, created: row.created_at, digest, by }))
    }

    /// As [`Self::pushed`], before a dispatch: what cannot be read now could not be compared later.
    pub(super) async fn pushed_before(&self, image: &Image) -> Result<Option<Pushed>, VerifyError> {
        self.pushed(image).await.map_err(|error| {
            let reason = match error.code() {
                Some(401 | 403) => "the token needs `read:package`".to_owned(),
                _ => error.to_string(),
            };
            VerifyError::NotReady(NotReady::Image { image: image.to_string(), reason })
        })
    }
}

/// Compares a tag before and after a run. `Err` says why it is no proof.
pub(super) fn compare(
    image: &Image,
    before: Option<Pushed>,
    after: Option<Pushed>,
    by: Option<&str>,
    run: &RunView,
) -> Result<ImageProof, String> {
    let Some(after) = after else { return Err(format!("`{image}` is not there: the run pushed nothing")) };
    if before.as_ref().is_some_and(|before| before.id == after.id) {
        return Err(format!("`{image}` is still the one from before: the run pushed nothing"));
    }
    let early = matches!((after.created, run.started), (Some(pushed), Some(from)) if pushed < from - SLACK);
    let late = matches!((after.created, run.stopped), (Some(pushed), Some(to)) if pushed > to + SLACK);
    if early || late {
        let when = if early { "before the run started" } else { "after the run had ended" };
        return Err(format!("`{image}` was pushed {when}: by somebody else"));
    }
    if let Some(wanted) = by.filter(|wanted| after.by.as_deref().is_none_or(|by| !by.eq_ignore_ascii_case(wanted))) {
        let by = after.by.as_deref().unwrap_or("nobody that the forge names");
        return Err(format!("`{image}` was pushed by {by}, not by {wanted}: another credential was used"));
    }
    let served = Err("it was not asked".to_owned());
    Ok(ImageProof { image: image.to_string(), before, after, served })
}

impl ImageProof {
    /// Takes in what the registry itself says of the tag. `Err` says why that is no proof.
    pub(super) fn seen_by_the_registry(mut self, served: Served) -> Result<Self, String> {
        let image = &self.image;
        match served {
            Served::Nothing => return Err(format!("`{image}` is listed, but the registry does not serve it")),
            Served::Hollow(part) => {
                return Err(format!("`{image}` is an index, and the registry does not serve its part {part}"));
            }
            Served::Unknown(why) => self.served = Err(why),
            Served::Digest(digest) => {
                if let Some(listed) = self.after.digest.as_ref().filter(|listed| !listed.eq_ignore_ascii_case(&digest))
                {
                    return Err(format!(
                        "`{image}` is listed with {listed}, but the registry serves {digest}: somebody pushed it again, \
                         or what stands before the registry answers with an old one"
                    ));
                }
                self.after.digest = Some(digest);
                self.served = Ok(());
            }
        }
        Ok(self)
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::super::run::{RunRef, RunState};
    use super::*;

    fn at(second: i64) -> Option<Timestamp> {
        Some(Timestamp::from_second(second).unwrap())
    }

    fn run() -> RunView {
        RunView {
            run: RunRef { id: Some(1), number: Some(1), url: None },
            state: RunState::Success,
            need_approval: false,
            partial: false,
            event: String::new(),
            workflow: String::new(),
            branch: String::new(),
            commit: String::new(),
            actor: None,
            inputs: None,
            created: at(1000),
            started: at(1010),
            stopped: at(1100),
        }
    }

    fn pushed(id: u64, created: i64) -> Option<Pushed> {
        Some(Pushed { id, created: at(created), digest: None, by: Some("publisher".to_owned()) })
    }

    #[test]
    fn only_a_new_row_from_the_time_of_the_run_counts() {
        let image = Image::parse("owner/name:latest").unwrap();
        let judge = |before, after| compare(&image, before, after, None, &run());
        assert!(judge(None, pushed(2, 1050)).is_ok());
        assert!(judge(pushed(1, 500), pushed(2, 1050)).is_ok());
        assert!(judge(pushed(1, 500), pushed(2, 1101)).is_ok());
        assert!(judge(None, None).unwrap_err().contains("not there"));
        assert!(judge(pushed(1, 500), None).is_err());
        assert!(judge(pushed(1, 500), pushed(1, 500)).unwrap_err().contains("still the one"));
        assert!(judge(None, pushed(2, 1000)).unwrap_err().contains("before the run"));
        assert!(judge(None, pushed(2, 1200)).unwrap_err().contains("after the run"));
        let by = |wanted| compare(&image, None, pushed(2, 1050), Some(wanted), &run());
        assert!(by("Publisher").is_ok());
        assert!(by("admin").unwrap_err().contains("another credential was used"));
    }

    #[test]
    fn addresses_before_images() {
        let of = |text| Image::of(text, "https://git.example.net/base").map(|image| image.to_string());
        assert_eq!(of("git.example.net/o/n:latest").unwrap(), "o/n:latest");
        assert_eq!(of("o/n:latest").unwrap(), "o/n:latest");
        assert_eq!(of("first.last/n:latest").unwrap(), "first.last/n:latest");
        assert!(of("ghcr.example.net/o/n:latest").unwrap_err().to_string().contains("another registry"));
    }

    #[test]
    fn names_of_images() {
        assert_eq!(Image::parse("Owner/Sub/Name:V1").unwrap().to_string(), "owner/sub/name:v1");
        for bad in ["name:latest", "owner/name", "owner/:x", "owner/..:x", "o/n:", "o/n?x:y", "o//n:x", "h:5000/o/n"] {
            assert!(Image::parse(bad).is_err(), "{bad}");
        }
    }
}
