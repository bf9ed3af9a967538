//! What is said of batches: a pure function from a batch and its verdicts to messages.

use bytes::Bytes;
use roam_nats::{Headers, Message};
use roam_schemas::{
    Action, Applied, BulkReceipt, BulkReceipts, Device, EncodeError, Encoding, JournalBatch, Notice, NoticeOperation,
    Outcome, Problem, Receipt, RejectedEntry, StampedChange, State, Stored, Timestamp, encode, headers, limits,
    subjects,
};

use crate::{
    apply::{AppliedBatch, Verdict},
    planted::planted,
    store::{Snapshot, StoreError, UserKey},
};

/// All that is to be said of some batches.
#[derive(Debug, Default)]
pub(super) struct Announcement {
    /// Receipts and notices, in order.
    pub(super) messages: Vec<Message>,
    /// What goes to ROAM_REJECTED.
    pub(super) filed: Vec<Message>,
    /// How many changes are receipted.
    pub(super) receipts: u64,
    /// How many notices there are.
    pub(super) notices: u64,
}

impl Announcement {
    /// Adds what is to be said of a batch: of each change a receipt, and of each that was applied in it a notice. Changes of one bulk, which
    /// stand side by side and have one origin, get their receipts in one message.
    pub(super) fn add(&mut self, batch: &AppliedBatch) -> Result<(), EncodeError> {
        let settled: Vec<Settled<'_>> = batch.batch.changes.iter().zip(&batch.verdicts).collect();
        for bulk in settled.chunk_by(|(one, _), (next, _)| are_of_one_bulk(one, next)) {
            match receipts(bulk)? {
                Some(receipts) => self.messages.push(receipts),
                None => {
                    for (stamped, verdict) in bulk {
                        self.messages.push(receipt(stamped, verdict)?);
                    }
                }
            }
            self.receipts += bulk.len() as u64;
            for (stamped, verdict) in bulk {
                self.tell_others(stamped, verdict)?;
            }
        }
        Ok(())
    }

    /// Adds a notice for whoever watches, or an entry for who looks after what is rejected.
    fn tell_others(&mut self, stamped: &StampedChange, verdict: &Verdict) -> Result<(), EncodeError> {
        match verdict {
            Verdict::Decided(Outcome::Applied(applied)) => {
                let notice = notice(stamped, applied)?;
                self.notices += u64::from(notice.is_some());
                self.messages.extend(notice);
            }
            Verdict::Decided(Outcome::Rejected(problem)) | Verdict::Mismatch(problem) => {
                self.filed.extend(filed(stamped, problem)?);
            }
            Verdict::Again(_) => {}
        }
        Ok(())
    }
}

/// A change, and what became of it.
type Settled<'a> = (&'a StampedChange, &'a Verdict);

/// Whether a service published both in one message. One origin alone does not say so: a change that was delivered twice has it both times, and
/// in a stream that was rolled back a sequence comes again for somebody else.
fn are_of_one_bulk(one: &StampedChange, next: &StampedChange) -> bool {
    one.stamp.origin == next.stamp.origin
        && one.change.id() != next.change.id()
        && one.device.is_service()
        && one.device == next.device
        && (&one.profile.tenant, &one.profile.app) == (&next.profile.tenant, &next.profile.app)
}

/// What became of the changes of a batch, from the table alone; none for each that it does not know.
pub(super) fn verdicts(snapshot: &Snapshot<'_>, batch: &JournalBatch) -> Result<Vec<Option<Verdict>>, StoreError> {
    (0..batch.changes.len()).map(|index| Verdict::from_seen(snapshot, batch, index)).collect()
}

/// Whether that is all that will be known of a batch that the journal took in then. Of a change whose user was erased later the
/// table knows nothing any more: its row went with all of theirs.
pub(super) fn are_settled(
    snapshot: &Snapshot<'_>,
    journaled: Timestamp,
    batch: &JournalBatch,
    verdicts: &[Option<Verdict>],
) -> Result<bool, StoreError> {
    for (stamped, _) in batch.changes.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_none()) {
        let user = UserKey::new(&stamped.profile.tenant, &stamped.profile.user);
        // By the clocks of two leaders, of which either may be ahead of the one that took in the order.
        let taken_in = stamped.stamp.time.min(journaled);
        if snapshot.erased(&user)?.is_none_or(|erased| erased.time < taken_in) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A batch as far as it is known what became of its changes: nothing is said of the others.
pub(super) fn known(sequence: u64, mut batch: JournalBatch, verdicts: Vec<Option<Verdict>>) -> AppliedBatch {
    let known = batch.changes.into_iter().zip(verdicts).filter_map(|(stamped, verdict)| Some((stamped, verdict?)));
    let (changes, verdicts) = known.unzip();
    batch.changes = changes;
    AppliedBatch { sequence, batch, verdicts }
}

/// The receipts of a bulk; none for a change that stands alone, and if they would be too large.
fn receipts(bulk: &[Settled<'_>]) -> Result<Option<Message>, EncodeError> {
    let [(StampedChange { profile, device, encoding, .. }, _), _, ..] = bulk else { return Ok(None) };
    let one = |(stamped, verdict): &Settled<'_>| {
        let (user, receipt) = (stamped.profile.user.clone(), settled(stamped, verdict));
        BulkReceipt { user, receipt }
    };
    let payload = encode(&BulkReceipts { receipts: bulk.iter().map(one).collect() }, *encoding)?;
    let subject = subjects::receipt_of_bulk(&profile.tenant, &profile.app, device);
    Ok((payload.len() <= limits::BULK_RECEIPTS_BYTES).then(|| told(subject, *encoding, payload)))
}

fn receipt(stamped: &StampedChange, verdict: &Verdict) -> Result<Message, EncodeError> {
    let another = Device::parse("device-0")
        .ok()
        .filter(|_| planted("receipt-to-another") && stamped.stamp.origin.sequence.is_multiple_of(50));
    let device = another.unwrap_or_else(|| stamped.device.clone());
    let payload = encode(&settled(stamped, verdict), stamped.encoding)?;
    Ok(told(subjects::receipt(&stamped.profile, &device), stamped.encoding, payload))
}

fn settled(stamped: &StampedChange, verdict: &Verdict) -> Receipt {
    let (again, outcome) = match verdict {
        Verdict::Decided(outcome) => (false, outcome.clone()),
        Verdict::Again(outcome) => (true, outcome.clone()),
        Verdict::Mismatch(problem) => (false, Outcome::Rejected(problem.clone())),
    };
    Receipt { sequence: stamped.stamp.origin.sequence, id: Some(stamped.change.id()), again, outcome }
}

fn told(subject: String, encoding: Encoding, payload: Vec<u8>) -> Message {
    Message { subject, reply: None, headers: Headers::new().with_content_type(encoding), payload: payload.into() }
}

/// The notice of a change; none if all of it came too late.
fn notice(stamped: &StampedChange, applied: &Applied) -> Result<Option<Message>, EncodeError> {
    let inline = value_bytes(stamped) < limits::NOTICE_BYTES;
    let Some(mut notice) = compose(stamped, applied, inline) else {
        return Ok(None);
    };
    let mut payload = encode(&notice, stamped.encoding)?;
    if inline && payload.len() >= limits::NOTICE_BYTES {
        notice.ops.iter_mut().for_each(drop_value);
        payload = encode(&notice, stamped.encoding)?;
    }
    let revision = applied.revision.to_string();
    Ok(Some(Message {
        subject: subjects::notice(&stamped.profile),
        reply: None,
        headers: Headers::new().with_content_type(stamped.encoding).with(headers::REVISION, revision),
        payload: payload.into(),
    }))
}

fn compose(stamped: &StampedChange, applied: &Applied, inline: bool) -> Option<Notice> {
    let superseded = |key: &_| applied.superseded.iter().any(|late| late.key == *key);
    let conflict = |key: &_| applied.conflicts.iter().any(|beaten| beaten.key == *key);
    let ops: Vec<_> = stamped
        .change
        .ops()
        .iter()
        .filter(|op| !superseded(&op.key))
        .map(|op| NoticeOperation {
            key: op.key.clone(),
            conflict: conflict(&op.key),
            state: match &op.action {
                Action::Delete => Some(State::Deleted),
                Action::Put(put) => inline.then(|| {
                    State::Value(Stored {
                        value: put.value.clone(),
                        content_type: put.content_type.clone(),
                        expires: put.ttl.map(|seconds| applied.time.plus_seconds(seconds.into())),
                    })
                }),
            },
        })
        .collect();
    (!ops.is_empty()).then(|| Notice {
        revision: applied.revision,
        time: applied.time,
        device: stamped.device.clone(),
        change: stamped.change.id(),
        ops,
    })
}

fn drop_value(op: &mut NoticeOperation) {
    if matches!(op.state, Some(State::Value(_))) {
        op.state = None;
    }
}

fn value_bytes(stamped: &StampedChange) -> usize {
    let values = stamped.change.ops().iter().map(|op| match &op.action {
        Action::Put(put) => put.value.len(),
        Action::Delete => 0,
    });
    values.sum()
}

/// The entry of ROAM_REJECTED; none for what a client must expect in ordinary work. The change is written again in
/// postcard, since what was decoded long ago is no longer at hand in its own encoding.
fn filed(stamped: &StampedChange, problem: &Problem) -> Result<Option<Message>, EncodeError> {
    if problem.code.is_expected() {
        return Ok(None);
    }
    let payload = encode(&stamped.change, Encoding::Postcard)?;
    let entry = RejectedEntry {
        profile: Some(&stamped.profile),
        subject: &subjects::change(&stamped.profile, &stamped.device),
        sequence: stamped.stamp.origin.sequence,
        encoding: Encoding::Postcard,
        payload: &payload,
        problem,
    };
    let headers = entry.headers().into_iter().fold(Headers::new(), |headers, (name, value)| headers.with(name, value));
    let (subject, payload) = (entry.filed_on(), Bytes::copy_from_slice(entry.kept()));
    Ok(Some(Message { subject, reply: None, headers, payload }))
}

#[cfg(test)]
mod tests;
