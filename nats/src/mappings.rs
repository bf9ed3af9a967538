//! The subject mappings of a deployment of several shards, as a part of a server's configuration: every server of it needs
//! the same. Pure: nothing here talks to a server, and which shard somebody is in is computed by the server itself.

use roam_schemas::{Shards, subjects};

/// The block for the account of Roam, or for a server without accounts: what clients publish and ask is put under the shard
/// of its user. Empty for a deployment of one shard, where nothing is mapped.
///
/// nats-server checks permissions on the mapped subject (measured with 2.15.1), and maps only what clients publish: neither
/// a PubAck nor an answer that somebody steered onto such a subject.
pub fn mappings_conf(shards: Shards) -> String {
    if shards.is_one() {
        return String::new();
    }
    let partition = format!("{{{{partition({},1,2)}}}}", shards.get());
    let lines =
        subjects::MAPPED.map(|pattern| format!("    \"{pattern}\": \"{}\"\n", destination(&partition, pattern)));
    format!(
        "\n# Which shard a user is in. Written by Roam: never change it while anything is stored.\nmappings {{\n{}}}\n",
        lines.concat()
    )
}

/// What a pattern is mapped to: each wildcard stays where it is.
fn destination(partition: &str, pattern: &str) -> String {
    let mapped = subjects::under_shard(partition, pattern);
    let mut parts = mapped.split('*');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.zip(1..).fold(first, |mapped, (part, number)| format!("{mapped}{{{{wildcard({number})}}}}{part}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_wildcard_stays_where_it_is() {
        let conf = mappings_conf(Shards::new(4).unwrap());
        for line in [
            r#""roam.v1.change.*.*.*.*": "roam.v1.s.{{partition(4,1,2)}}.change.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}}""#,
            r#""roam.v1.latest.*.*.*": "roam.v1.s.{{partition(4,1,2)}}.latest.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}""#,
            r#""roam.v1.upload.*.*": "roam.v1.s.{{partition(4,1,2)}}.upload.{{wildcard(1)}}.{{wildcard(2)}}""#,
        ] {
            assert!(conf.contains(line), "{line}\n{conf}");
        }
        assert_eq!(conf.matches("partition").count(), subjects::MAPPED.len());
    }

    #[test]
    fn one_shard_maps_nothing() {
        assert_eq!(mappings_conf(Shards::ONE), "");
    }
}
