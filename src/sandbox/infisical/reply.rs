//! The stand-in's answers: refusals in the server's own words, and what was asked.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A refusal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct No(Box<Refused>);

#[derive(Debug, Clone, PartialEq)]
struct Refused {
    status: u16,
    error: String,
    message: Value,
    details: Option<Value>,
    /// An address that leads nowhere is answered by another part of the server.
    plain: bool,
}

/// What a handler says.
pub(super) type Said = Result<Value, No>;

impl No {
    pub(super) fn new(status: u16, error: &str, message: impl Into<Value>) -> Self {
        let (error, message) = (error.to_owned(), message.into());
        Self(Box::new(Refused { status, error, message, details: None, plain: false }))
    }

    /// With details.
    pub(super) fn detailed(mut self, details: Value) -> Self {
        self.0.details = Some(details);
        self
    }

    /// What it says.
    pub(super) fn message(&self) -> &Value {
        &self.0.message
    }

    pub(super) fn respond(self) -> Response {
        let Refused { status, error, message, details, plain } = *self.0;
        let mut body = json!({"message": message, "error": error, "statusCode": status});
        if let Some(object) = body.as_object_mut()
            && !plain
        {
            object.insert("reqId".to_owned(), format!("req-{}", short()).into());
            if let Some(details) = details {
                object.insert("details".to_owned(), details);
            }
        }
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(body)).into_response()
    }
}

fn short() -> String {
    uuid::Uuid::new_v4().simple().to_string().chars().take(14).collect()
}

pub(super) fn bad_request(message: impl Into<String>) -> No {
    No::new(400, "BadRequest", message.into())
}

pub(super) fn not_found(message: impl Into<String>) -> No {
    No::new(404, "NotFound", message.into())
}

pub(super) fn unauthorized(message: &str) -> No {
    No::new(401, "UnauthorizedError", message)
}

pub(super) fn token_error(message: &str) -> No {
    No::new(403, "TokenError", message)
}

pub(super) fn forbidden(message: &str) -> No {
    No::new(403, "ForbiddenError", message)
}

/// The rules do not allow it; `about` are the rules that the caller has about it.
pub(super) fn denied(action: &str, subject: &str, about: Vec<Value>) -> No {
    let message = format!("You are not allowed to {action} on {subject}");
    let mut no = No::new(403, "PermissionDenied", message);
    no.0.details = Some(about.into());
    no
}

pub(super) fn not_member(project: &str) -> No {
    let message = format!(
        "You are not a member of this project with ID {project}. Please assign this identity to the project with the \
         appropriate permissions, then try again."
    );
    No::new(403, "ProjectMembershipNotFound", message)
}

/// A field of the request is wrong.
pub(super) fn invalid(issue: Value) -> No {
    No::new(422, "ValidationFailure", Value::Array(vec![issue]))
}

/// A field of the request is missing.
pub(super) fn required(field: &str) -> No {
    let path = [field];
    invalid(json!({
        "code": "invalid_type", "expected": "string", "received": "undefined", "path": path, "message": "Required",
    }))
}

/// This kind of login may not ask that.
pub(super) fn wrong_login(target: &str) -> No {
    No::new(403, &format!("Forbidden access to {target}"), "You are not allowed to access this resource")
}

/// There is no such route.
pub(super) fn no_route(method: &str, target: &str) -> No {
    let mut no = No::new(404, "Not Found", format!("Route {method}:{target} not found"));
    no.0.plain = true;
    no
}

/// One request.
pub(super) struct Ask {
    pub(super) method: String,
    /// Path and query, as they came.
    pub(super) target: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) authorization: Option<String>,
    pub(super) body: Value,
}

impl Ask {
    /// A query parameter.
    pub(super) fn asked(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }

    /// A text of the body.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.body.get(key).and_then(Value::as_str)
    }

    /// A text of the body that must be there.
    pub(super) fn need(&self, key: &str) -> Result<&str, No> {
        self.text(key).ok_or_else(|| required(key))
    }

    pub(super) fn number(&self, key: &str) -> Option<i64> {
        self.body.get(key).and_then(Value::as_i64)
    }

    /// A page's beginning and length.
    pub(super) fn page(&self, largest_offset: i64, largest: i64) -> Result<(usize, usize), No> {
        let number = |key: &str, default: i64, most: i64| {
            let number = self.asked(key).and_then(|text| text.parse().ok()).unwrap_or(default);
            if number > most {
                let message = format!("Number must be less than or equal to {most}");
                return Err(invalid(json!({
                    "code": "too_big", "maximum": most, "type": "number", "inclusive": true, "exact": false,
                    "message": message, "path": [key],
                })));
            }
            Ok(usize::try_from(number).unwrap_or_default())
        };
        Ok((number("offset", 0, largest_offset)?, number("limit", 20, largest)?))
    }
}
