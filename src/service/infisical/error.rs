//! What Infisical's refusals mean. They are told apart by the server's own class, the body's `error`: one status
//! stands for several of them, and only within a class do the words matter.

use crate::service::http::{HttpError, Refusal};

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The token was revoked, or what it hangs on was.
    Revoked,
    /// The token's own end has come.
    Expired,
    /// The token has no end, and such tokens are taken no longer.
    OverAge,
    /// The token was used as often as it may be.
    UsedUp,
    /// The client id or secret is wrong, or login is locked for a while.
    BadLogin,
    /// The token is none: cut, in quotes, of another server.
    BadToken,
    /// Not logged in, for another reason.
    LoggedOut,
    /// The rules do not allow it.
    Denied,
    /// No member of that project.
    NotMember,
    /// It may be described, its value may not be read.
    ValueDenied,
    /// Only for instance admins, or a reference that may not be followed.
    Forbidden,
    /// More would be granted than the one who grants has.
    Boundary,
    /// This kind of login may not ask that.
    WrongKind,
    /// It is not there.
    NotFound,
    /// The server knows no such address: it is older or newer.
    NoRoute,
    /// A rule of the business, such as one that needs a licence.
    BadRequest,
    /// A field is wrong.
    Invalid,
    /// Too many requests.
    Busy,
    /// The server failed.
    Server,
    /// A class that is not known here.
    Other,
}

impl Class {
    /// What a refusal means.
    #[must_use]
    pub fn of(refusal: &Refusal) -> Self {
        let says = |words: &str| refusal.message.contains(words);
        match (refusal.class.as_deref(), refusal.code) {
            (Some("UnauthorizedError"), _) if says("revoked") => Self::Revoked,
            // The identity itself is gone.
            (Some("UnauthorizedError"), _) if says("not a member of the organization") => Self::Revoked,
            (Some("UnauthorizedError"), _) if says("exceeded max age") => Self::OverAge,
            (Some("UnauthorizedError"), _) if says("usage limit") || says("exhausted") => Self::UsedUp,
            (Some("UnauthorizedError"), _) if says("Invalid credentials") => Self::BadLogin,
            (Some("UnauthorizedError"), _) => Self::LoggedOut,
            (Some("TokenError"), _) if says("expired") => Self::Expired,
            (Some("TokenError"), _) => Self::BadToken,
            (Some("PermissionDenied"), _) => Self::Denied,
            (Some("ProjectMembershipNotFound"), _) => Self::NotMember,
            (Some("ForbiddenReadSecretError"), _) => Self::ValueDenied,
            (Some("ForbiddenError"), _) => Self::Forbidden,
            (Some("PermissionBoundaryError"), _) => Self::Boundary,
            (Some("NotFound" | "GetSecretByName"), _) => Self::NotFound,
            (Some("BadRequest"), _) => Self::BadRequest,
            (Some("ValidationFailure"), _) => Self::Invalid,
            (Some("RateLimitExceeded"), _) | (None, 429) => Self::Busy,
            // These two classes are sentences and no single word.
            (None, 404) => Self::NoRoute,
            (None, 403) => Self::WrongKind,
            (_, code) if code >= 500 => Self::Server,
            (None, 401) => Self::LoggedOut,
            _ => Self::Other,
        }
    }

    /// The credential itself is refused: every other request with it will be.
    #[must_use]
    pub fn is_about_login(self) -> bool {
        matches!(
            self,
            Self::Revoked
                | Self::Expired
                | Self::OverAge
                | Self::UsedUp
                | Self::BadLogin
                | Self::BadToken
                | Self::LoggedOut
        )
    }

    /// The credential opens nothing any more, and will not again: the server itself said why. A refusal that does not, such as
    /// a proxy's, proves nothing.
    #[must_use]
    pub fn is_the_end(self) -> bool {
        matches!(self, Self::Revoked | Self::Expired | Self::OverAge)
    }

    /// In a word or two, for a table.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::OverAge => "over age",
            Self::UsedUp => "used up",
            Self::BadLogin => "bad login",
            Self::BadToken => "bad token",
            Self::LoggedOut => "not logged in",
            Self::Denied => "denied",
            Self::NotMember => "no member",
            Self::ValueDenied => "value denied",
            Self::Forbidden => "forbidden",
            Self::Boundary => "beyond the operator's own rights",
            Self::WrongKind => "wrong kind of login",
            Self::NotFound => "not found",
            Self::NoRoute => "no such route",
            Self::BadRequest => "bad request",
            Self::Invalid => "invalid",
            Self::Busy => "busy",
            Self::Server => "server error",
            Self::Other => "refused",
        }
    }
}

/// Why Infisical did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InfisicalError {
    /// The server said no.
    #[error("{}: {refusal}", .class.word())]
    Refused {
        /// What it means.
        class: Class,
        /// What it said.
        refusal: Box<Refusal>,
    },
    /// The server could not be asked, or its answer was not understood.
    #[error("infisical could not be asked")]
    Http(#[source] HttpError),
    /// There is no such project, or the operator is no member of it.
    #[error("there is no project `{0}`, or the operator is no member of it")]
    NoProject(String),
    /// A name stands for several identities.
    #[error("{} identities are called `{name}` ({}); give the `id` of the right one", .ids.len(), .ids.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// Their ids.
        ids: Vec<String>,
    },
    /// An id stands for nothing, or for something with another name.
    #[error("identity `{id}` {why}")]
    WrongIdentity {
        /// The id.
        id: String,
        /// What is wrong.
        why: String,
    },
    /// The server answered with something that does not fit what was asked.
    #[error("infisical's answer does not fit: {0}")]
    Odd(String),
}

impl From<HttpError> for InfisicalError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Status(refusal) => Self::Refused { class: Class::of(&refusal), refusal },
            other => Self::Http(other),
        }
    }
}

impl InfisicalError {
    /// What the refusal means, if it is one.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        match self {
            Self::Refused { class, .. } => Some(*class),
            _ => None,
        }
    }

    /// Whether the request may have taken effect although no success was reported.
    #[must_use]
    pub fn may_have_acted(&self) -> bool {
        match self {
            Self::Refused { refusal, .. } => refusal.code >= 500,
            Self::Http(error) => error.may_have_acted(),
            Self::Odd(_) => true,
            Self::NoProject(_) | Self::Ambiguous { .. } | Self::WrongIdentity { .. } => false,
        }
    }

    /// Whether it may still take effect: nobody who knows has answered yet.
    #[must_use]
    pub fn may_act_late(&self) -> bool {
        match self {
            // The server's own class: it is through with the request.
            Self::Refused { refusal, .. } => refusal.code >= 500 && refusal.class.is_none(),
            other => other.may_have_acted(),
        }
    }

    /// The server does not take the operator's credential, or the operator may not do this: it will say so again.
    #[must_use]
    pub fn is_auth(&self) -> bool {
        self.class().is_some_and(|class| {
            class.is_about_login() || matches!(class, Class::Denied | Class::NotMember | Class::Boundary)
        })
    }
}

/// `None` where it is not there.
pub(super) fn if_there<T>(result: Result<T, InfisicalError>) -> Result<Option<T>, InfisicalError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.class() == Some(Class::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: u16, class: Option<&str>, message: &str) -> Class {
        Class::of(&Refusal {
            at: String::new(),
            code,
            class: class.map(str::to_owned),
            message: message.to_owned(),
            retry_after: None,
            details: None,
        })
    }

    #[test]
    fn only_the_server_s_own_word_is_the_end() {
        for (code, of, message) in [
            (401, None, ""),
            (401, None, "token has been revoked"),
            (401, Some("UnauthorizedError"), "Token missing"),
            (401, Some("UnauthorizedError"), "Invalid credentials"),
            (403, None, "expired"),
            (403, Some("TokenError"), "invalid signature"),
            (502, None, "revoked"),
        ] {
            assert!(!class(code, of, message).is_the_end(), "{code} {of:?} {message}");
        }
        for (code, of, message) in [
            (401, "UnauthorizedError", "Failed to authorize: token has been revoked"),
            (401, "UnauthorizedError", "Identity access token exceeded max age, please re-authenticate"),
            (403, "TokenError", "Your token has expired. Please re-authenticate."),
        ] {
            assert!(class(code, Some(of), message).is_the_end(), "{code} {of} {message}");
        }
    }

    #[test]
    fn one_status_is_many_things() {
        assert_eq!(class(403, Some("TokenError"), "Your token has expired. Please"), Class::Expired);
        assert_eq!(class(403, Some("TokenError"), "invalid signature"), Class::BadToken);
        assert_eq!(class(403, Some("PermissionDenied"), "x"), Class::Denied);
        assert_eq!(class(403, Some("ProjectMembershipNotFound"), "x"), Class::NotMember);
        assert_eq!(class(403, None, "You are not allowed to access this resource"), Class::WrongKind);
        assert_eq!(class(401, Some("UnauthorizedError"), "a: token has been revoked"), Class::Revoked);
        assert_eq!(class(401, Some("UnauthorizedError"), "Token missing"), Class::LoggedOut);
        assert_eq!(class(404, Some("GetSecretByName"), "x"), Class::NotFound);
        assert_eq!(class(404, None, "Route GET:/x not found"), Class::NoRoute);
        assert_eq!(class(500, Some("FindByOrgId"), "x"), Class::Server);
        assert_eq!(class(502, None, ""), Class::Server);
    }
}
