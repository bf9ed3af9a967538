//! `holdings`: what this replica holds of a user.

use roam_schemas::{HoldingsReply, HoldingsRequest, TableRows};

use super::{Operated, Refusal};
use crate::store::UserKey;

impl Operated {
    /// Counts. Reads all that ends by itself, whosever it is.
    pub(super) fn holdings(&self, asked: &HoldingsRequest) -> Result<HoldingsReply, Refusal> {
        let snapshot = self.reader.snapshot();
        let rows = snapshot.rows_of_user(&UserKey::new(&asked.tenant, &asked.user))?;
        Ok(HoldingsReply {
            name: self.name.clone(),
            position: snapshot.position()?.as_ref().map(Into::into),
            rows: rows.into_iter().map(|(table, rows)| TableRows { table: table.to_owned(), rows }).collect(),
            chunks: self.chunks.count_of(&asked.tenant, &asked.user),
            leaving: self.leaving.count(),
        })
    }
}
