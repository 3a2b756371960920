//! What the registry itself serves for a tag, asked as an engine that pulls it would.
//!
//! The list of packages is the forge's own account. The registry's answer is what a deployment gets: only together do
//! they say that the image that was pushed is the image that is served.

use secrecy::SecretString;
use serde::Deserialize;

use super::ForgeClient;
use super::image::Image;
use crate::service::http::{Api, Auth, HttpError, Method, Request};

/// The tag's own manifest, whatever its kind: without these, a registry may choose another one for an old client.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Served {
    /// The manifest's digest (`sha256:…`).
    Digest(String),
    /// The registry does not know the tag.
    Nothing,
    /// The tag is an index, and the registry does not serve this part of it.
    Hollow(String),
    /// It could not be asked, and why.
    Unknown(String),
}

#[derive(Deserialize)]
struct Granted {
    token: SecretString,
}

/// An index has these; a plain manifest has none.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Option<Vec<Child>>,
}

#[derive(Deserialize)]
struct Child {
    digest: String,
}

/// How many parts of an index are asked for: an image has a handful of platforms.
const CHILDREN: usize = 64;

#[derive(Deserialize)]
struct Login {
    login: String,
}

impl ForgeClient {
    /// Asks the registry for a tag's digest, by the token flow of the distribution protocol. Reads only.
    pub(super) async fn served(&self, image: &Image) -> Served {
        let reader = match self.reader(image).await {
            Ok(reader) => reader,
            Err(error) => return Served::Unknown(format!("it gives no token: {error}")),
        };
        let path: Vec<&str> = ["v2"].into_iter().chain(image.path()).chain(["manifests", image.tag()]).collect();
        match reader.send(&Request::new(Method::Head, &path).header("accept", MANIFESTS)).await {
            Ok(reply) => match reply.header("docker-content-digest").filter(|digest| is_digest(digest)) {
                Some(digest) => match self.hollow(&reader, image, &digest).await {
                    Ok(None) => Served::Digest(digest),
                    Ok(Some(child)) => Served::Hollow(child),
                    Err(error) => Served::Unknown(format!("its parts cannot be looked at: {error}")),
                },
                None => Served::Unknown("it names no digest".to_owned()),
            },
            Err(error) if error.code() == Some(404) => Served::Nothing,
            Err(error) => Served::Unknown(error.to_string()),
        }
    }

    /// The first part of an index that the registry does not serve: the images for each platform are manifests of their own.
    async fn hollow(&self, reader: &Api, image: &Image, digest: &str) -> Result<Option<String>, HttpError> {
        let path = |of: &str| -> Vec<String> {
            let parts = ["v2"].into_iter().chain(image.path()).chain(["manifests", of]);
            parts.map(str::to_owned).collect()
        };
        let at = path(digest);
        let at: Vec<&str> = at.iter().map(String::as_str).collect();
        let index: Index = reader.send(&Request::new(Method::Get, &at).header("accept", MANIFESTS)).await?.json()?;
        for child in index.manifests.unwrap_or_default().into_iter().take(CHILDREN) {
            if !is_digest(&child.digest) {
                return Ok(Some(crate::service::http::clean(&child.digest)));
            }
            let at = path(&child.digest);
            let at: Vec<&str> = at.iter().map(String::as_str).collect();
            match reader.send(&Request::new(Method::Head, &at).header("accept", MANIFESTS)).await {
                Ok(_) => {}
                Err(error) if error.code() == Some(404) => return Ok(Some(child.digest)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The registry, with a token that may pull this image.
    async fn reader(&self, image: &Image) -> Result<Api, HttpError> {
        let login = match &self.token {
            Some(token) => Auth::Basic { user: self.login().await, secret: token.clone() },
            None => Auth::None,
        };
        let scope = format!("repository:{}:pull", image.path().collect::<Vec<_>>().join("/"));
        let ask = Request::new(Method::Get, &["v2", "token"]).query("service", "container_registry");
        let granted: Granted = self.api().with_auth(&login)?.send(&ask.query("scope", &scope)).await?.json()?;
        self.api().with_auth(&Auth::Bearer(granted.token))
    }

    /// The user's name. The server tells who it is by the token, so where it cannot be asked for any name will do.
    async fn login(&self) -> String {
        let asked = self.get_if_there::<Login>(&Request::new(Method::Get, &["api", "v1", "user"])).await;
        asked.ok().flatten().map_or_else(|| "keyswap".to_owned(), |user| user.login)
    }
}

/// `sha256:` and 64 hex digits.
fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}
