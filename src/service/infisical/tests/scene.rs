//! A stand-in with a story, and an operator in it.

use std::time::Duration;

use secrecy::SecretString;

use super::super::*;
use crate::model::{Access, IdentityScope, IdentitySpec};
use crate::sandbox::infisical::{Clock, KEYS, PATH, PROJECT, StandIn, Story, World};
use crate::service::http::RetryPolicy;

pub(super) struct Scene {
    pub(super) stand_in: StandIn,
    pub(super) story: Story,
}

pub(super) fn config() -> InfisicalConfig {
    let ms = Duration::from_millis;
    let retry = RetryPolicy { attempts: 3, first: ms(1), longest: ms(4), longest_wish: ms(10) };
    InfisicalConfig {
        http: Config { connect_timeout: ms(20_000), request_timeout: ms(20_000), retry, ..Config::default() },
        permission_cache: Duration::ZERO,
        look_for: ms(30),
        look_again: ms(10),
        late: ms(500),
        ..InfisicalConfig::default()
    }
}

pub(super) fn spec() -> IdentitySpec {
    let read = KEYS.map(str::to_owned).to_vec();
    IdentitySpec {
        name: "forgejo-docker-publish".to_owned(),
        id: None,
        project: PROJECT.to_owned(),
        scope: IdentityScope::Project,
        ttl: Duration::from_secs(90 * 86_400),
        access: vec![Access { environment: "prod".to_owned(), path: PATH.to_owned(), read }],
    }
}

impl Scene {
    pub(super) async fn new() -> Self {
        Self::at(Clock::real()).await
    }

    pub(super) async fn at(clock: Clock) -> Self {
        let mut world = World::new(clock);
        let story = world.tell();
        Self { stand_in: StandIn::start(world).await.unwrap(), story }
    }

    pub(super) fn client(&self, login: Login) -> Infisical {
        self.client_with(login, config())
    }

    pub(super) fn client_with(&self, login: Login, config: InfisicalConfig) -> Infisical {
        let url = self.stand_in.url();
        let service = Service { url, ca_file: None, token: None, client_id: None, client_secret: None };
        Infisical::new(&service, login, config).unwrap()
    }

    pub(super) fn operator(&self) -> Infisical {
        self.client(self.login())
    }

    /// An operator who does not wait long: only where somebody never answers, for a slow machine is no fault.
    pub(super) fn hurried(&self) -> Infisical {
        let mut config = config();
        config.http.request_timeout = Duration::from_millis(400);
        self.client_with(self.login(), config)
    }

    fn login(&self) -> Login {
        Login::UniversalAuth {
            client_id: self.story.client_id.clone(),
            client_secret: SecretString::from(self.story.client_secret.clone()),
        }
    }

    /// The instance admin, with the token that others use too.
    pub(super) fn admin(&self) -> Infisical {
        self.client(Login::Token(SecretString::from(self.story.admin_token.clone())))
    }

    /// Makes the identity as its file says and opens it for minting.
    pub(super) async fn issuer(&self) -> InfisicalIssuer {
        let operator = self.operator();
        let planned = operator.plan_identity(&spec()).await.unwrap();
        operator.apply_identity(&spec(), &planned.changes).await.unwrap();
        InfisicalIssuer::open(operator, spec()).await.unwrap()
    }
}
