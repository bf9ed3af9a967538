//! Who a client is: a device of a user, or a service of a tenant. Identity stands in subjects alone, because NATS
//! permissions guard the subject; nothing in a payload is believed, ours included.

use roam_schemas::{App, Device, Profile, ServiceName, Shards, Tenant, User, subjects};

use crate::publish::Bulks;

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A device, which reads and writes the profiles of its user.
    Device {
        /// The organisation.
        tenant: Tenant,
        /// The person.
        user: User,
        /// The device.
        device: Device,
    },
    /// A service, which reads and writes the profiles of all users of its tenant, as the device `$svc-<name>`.
    Service {
        /// The organisation.
        tenant: Tenant,
        /// The service.
        name: ServiceName,
    },
}

/// A profile is not this identity's to use: a mistake of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A service has no profile of its own.
    #[error("a service has no profile of its own: name the user")]
    NoUser,
    /// A device uses the profiles of its own user only.
    #[error("a device uses only the profiles of its own user")]
    OtherUser,
}

impl Identity {
    /// The device that this identity writes as.
    pub fn device(&self) -> Device {
        match self {
            Self::Device { device, .. } => device.clone(),
            Self::Service { name, .. } => Device::service(name),
        }
    }

    /// What this identity's reply subjects begin with, unless its permissions say otherwise.
    pub fn inbox_prefix(&self) -> String {
        match self {
            Self::Device { tenant, user, device } => subjects::device_inbox(tenant, user, device),
            Self::Service { tenant, name } => subjects::service_inbox(tenant, name),
        }
    }

    /// What the reply subjects of whoever may use only these apps begin with; all of them if there are none.
    pub(crate) fn inbox_prefix_for(&self, apps: &[App]) -> String {
        let whole = self.inbox_prefix();
        // Answers about the others may come there too: whoever may use several apps may listen for each of them.
        apps.first().map_or_else(|| whole.clone(), |app| subjects::inbox_for_app(&whole, app))
    }

    /// The subjects on which the receipts of this identity come: one for all apps, or one for each.
    pub(crate) fn receipts(&self, apps: &[App]) -> Vec<String> {
        let of_app = |app| match self {
            Self::Device { tenant, user, device } => subjects::receipts_of_app(tenant, user, app, device),
            Self::Service { tenant, name } => subjects::receipts_of_service_for(tenant, app, name),
        };
        match self {
            _ if !apps.is_empty() => apps.iter().map(of_app).collect(),
            Self::Device { tenant, user, device } => vec![subjects::receipts_of_device(tenant, user, device)],
            Self::Service { tenant, name } => vec![subjects::receipts_of_service(tenant, name)],
        }
    }

    /// How the changes of a service go together in a deployment of so many shards.
    pub(crate) fn bulks(&self, shards: Option<Shards>) -> Option<Bulks> {
        match self {
            Self::Device { .. } => None,
            Self::Service { tenant, name } => shards.map(|shards| Bulks::new(tenant.clone(), name.clone(), shards)),
        }
    }

    pub(crate) fn own_profile(&self, app: App) -> Result<Profile, IdentityError> {
        match self {
            Self::Device { tenant, user, .. } => Ok(Profile { tenant: tenant.clone(), user: user.clone(), app }),
            Self::Service { .. } => Err(IdentityError::NoUser),
        }
    }

    pub(crate) fn profile_of(&self, user: User, app: App) -> Result<Profile, IdentityError> {
        match self {
            Self::Device { user: own, .. } if *own != user => Err(IdentityError::OtherUser),
            Self::Device { tenant, .. } | Self::Service { tenant, .. } => {
                Ok(Profile { tenant: tenant.clone(), user, app })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn device() -> Identity {
        Identity::Device {
            tenant: Tenant::parse("acme").unwrap(),
            user: User::parse("alice@example.com").unwrap(),
            device: Device::parse("laptop").unwrap(),
        }
    }

    fn service() -> Identity {
        Identity::Service { tenant: Tenant::parse("acme").unwrap(), name: ServiceName::parse("hr").unwrap() }
    }

    #[test]
    fn each_identity_has_its_own_inbox_and_receipts() {
        assert_eq!(device().inbox_prefix(), "_INBOX.acme.alice%40example%2Ecom.laptop");
        assert_eq!(device().receipts(&[]), ["roam.v1.receipt.acme.alice%40example%2Ecom.*.laptop"]);
        assert_eq!(service().inbox_prefix(), "_INBOX.acme.$svc.hr");
        assert_eq!(service().receipts(&[]), ["roam.v1.receipt.acme.*.*.$svc-hr"]);
        assert_eq!(service().device().as_str(), "$svc-hr");
    }

    #[test]
    fn whoever_may_use_some_apps_listens_for_those_alone() {
        let apps = ["mail", "a.b"].map(|app| App::parse(app).unwrap());
        assert_eq!(device().inbox_prefix_for(&[]), device().inbox_prefix());
        assert_eq!(device().inbox_prefix_for(&apps), "_INBOX.acme.alice%40example%2Ecom.laptop.mail");
        assert_eq!(
            device().receipts(&apps),
            [
                "roam.v1.receipt.acme.alice%40example%2Ecom.mail.laptop",
                "roam.v1.receipt.acme.alice%40example%2Ecom.a%2Eb.laptop"
            ]
        );
        assert_eq!(service().receipts(&apps[..1]), ["roam.v1.receipt.acme.*.mail.$svc-hr"]);
    }

    #[test]
    fn a_device_uses_only_its_own_user_and_a_service_must_name_one() {
        let (alice, bob) = (User::parse("alice@example.com").unwrap(), User::parse("bob").unwrap());
        let app = App::parse("mail").unwrap();
        let own = device().own_profile(app.clone()).unwrap();
        assert_eq!(device().profile_of(alice, app.clone()), Ok(own));
        assert_eq!(device().profile_of(bob.clone(), app.clone()), Err(IdentityError::OtherUser));
        assert_eq!(service().own_profile(app.clone()), Err(IdentityError::NoUser));
        assert_eq!(service().profile_of(bob.clone(), app).unwrap().user, bob);
    }
}
