//! Names of things, from texts that are known to be right.

use roam_schemas::{App, ContentType, Device, Key, Profile, Tenant, User};

/// A tenant.
///
/// # Panics
/// If that is no name, as all functions here.
pub fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

/// A user.
pub fn user(name: &str) -> User {
    User::parse(name).unwrap()
}

/// An app.
pub fn app(name: &str) -> App {
    App::parse(name).unwrap()
}

/// A device.
pub fn device(name: &str) -> Device {
    Device::parse(name).unwrap()
}

/// A profile, written `tenant/user/app`.
pub fn profile(text: &str) -> Profile {
    text.parse().unwrap()
}

/// A key.
pub fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// Keys.
pub fn keys(texts: &[&str]) -> Vec<Key> {
    texts.iter().map(|text| key(text)).collect()
}

/// The content type of text.
pub fn text() -> ContentType {
    ContentType::text()
}
