//! The environment's servers, as steps see them.

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::CliError;
use crate::model::{self, Http, VerifyPublish};
use crate::secret::{Redactor, Sources};
use crate::service::forge::{Forge, ForgeClient, ForgeConfig, Progress};
use crate::service::http::probe;
use crate::step::{ServiceError, Services, Verified};

/// The forge, if the inventory names one, and plain HTTP.
pub(super) struct Servers {
    forge: Option<ForgeClient>,
}

impl Servers {
    /// Reads the forge's token and makes its client, if a step needs it.
    pub(super) async fn new(
        services: &model::Services,
        needs_forge: bool,
        sources: &Sources,
        redactor: &Redactor,
    ) -> Result<Self, CliError> {
        if !needs_forge {
            return Ok(Self { forge: None });
        }
        let Some(service) = &services.forge else {
            return Err(CliError::usage("verify-publish needs [services.forge] in the inventory"));
        };
        let token = match &service.token {
            Some(source) => {
                let value = sources.read("services.forge.token", source).await?;
                redactor.register(&value);
                Some(SecretString::from(value.expose_text()))
            }
            None => None,
        };
        let forge = ForgeClient::new(service, token, ForgeConfig::default())
            .map_err(|error| CliError::Server(format!("[services.forge]: {}", crate::model::chain(&error))))?;
        Ok(Self { forge: Some(forge) })
    }

    /// No servers: for what asks none.
    pub(super) fn none() -> Self {
        Self { forge: None }
    }

    fn forge(&self) -> Result<&ForgeClient, ServiceError> {
        let message = || ServiceError { message: "the inventory names no forge".to_owned(), auth: false };
        self.forge.as_ref().ok_or_else(message)
    }
}

fn told(error: &crate::service::forge::VerifyError) -> ServiceError {
    ServiceError { message: crate::model::chain(error), auth: error.is_common() }
}

impl Services for Servers {
    fn preflight<'a>(&'a self, spec: &'a VerifyPublish) -> BoxFuture<'a, Result<(), ServiceError>> {
        Box::pin(async move { self.forge()?.preflight(spec).await.map(|_| ()).map_err(|error| told(&error)) })
    }

    fn verify_publish<'a>(
        &'a self,
        spec: &'a VerifyPublish,
        progress: &'a (dyn Fn(String) + Send + Sync),
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<Verified, ServiceError>> {
        Box::pin(async move {
            let mut say = |news: Progress| progress(news.to_string());
            let published = self.forge()?.verify_publish(spec, &mut say, cancel).await.map_err(|error| told(&error))?;
            let tasks = published.jobs.iter().filter_map(|job| job.task).collect();
            let runners = published.jobs.iter().filter_map(|job| job.runner.clone()).collect();
            Ok(Verified { detail: published.to_string(), tasks, runners })
        })
    }

    fn http<'a>(&'a self, spec: &'a Http) -> BoxFuture<'a, Result<String, ServiceError>> {
        Box::pin(async move {
            match probe(spec).await {
                Ok(()) => Ok(format!("answered {}", spec.status)),
                Err(error) => Err(ServiceError { message: crate::model::chain(&error), auth: false }),
            }
        })
    }
}
