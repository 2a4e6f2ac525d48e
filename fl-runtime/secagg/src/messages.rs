//! What clients and server send each other, and its bytes.
//!
//! Numbers are little-endian; a list is its count, 32 bits, and its entries. Members are named
//! by their number in the roster. Every decode checks lengths, counts and numbers before it
//! takes memory for them; what is left to check needs the session.

use super::error::Malformed;
use super::parameters::MAX_MEMBERS;
use super::shamir::Share;

/// Bytes of two shares under ChaCha20-Poly1305, whose tag has 16.
pub const SEALED_BYTES: usize = 2 * Share::BYTES + 16;

/// A message with bytes.
pub trait Message: Sized {
    /// Most bytes that one takes.
    const LIMIT: usize;

    /// Its bytes.
    fn encode(&self) -> Vec<u8>;

    /// The message of these bytes, all of which belong to it. What decodes encodes to the same.
    ///
    /// # Errors
    /// [`Malformed`].
    fn decode(bytes: &[u8]) -> Result<Self, Malformed>;
}

/// Round 0, client to server: the client's public keys for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Ed25519 key by which the client is known.
    pub identity: [u8; 32],
    /// X25519 key under which it gets shares.
    pub cipher: [u8; 32],
    /// X25519 key that its pair masks come from.
    pub pair: [u8; 32],
    /// Derived from the seed of its own mask.
    pub commitment: [u8; 32],
    /// What its vector is said to count for in the sum.
    pub samples: u32,
    /// Ed25519 signature of session id, identity, keys, commitment and samples.
    pub signature: [u8; 64],
}

impl Advertisement {
    const BYTES: usize = 196;

    /// All but the signature.
    pub(super) fn signed_part(&self) -> [u8; 132] {
        let mut bytes = [0; 132];
        bytes[128..].copy_from_slice(&self.samples.to_le_bytes());
        let parts = [&self.identity, &self.cipher, &self.pair, &self.commitment];
        for (to, part) in bytes.chunks_exact_mut(32).zip(parts) {
            to.copy_from_slice(part);
        }
        bytes
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.signed_part());
        bytes.extend_from_slice(&self.signature);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Advertisement {
            identity: reader.array()?,
            cipher: reader.array()?,
            pair: reader.array()?,
            commitment: reader.array()?,
            samples: reader.number()?,
            signature: reader.array()?,
        })
    }
}

/// Round 1, server to client: everyone's keys, in ascending order of identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// The members; their places are their numbers.
    pub members: Vec<Advertisement>,
}

/// Shares of one client's two secrets, sealed for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The receiver on the way to the server, the sender on the way from it.
    pub member: u32,
    /// Ciphertext and tag.
    pub sealed: [u8; SEALED_BYTES],
}

/// Round 1, client to server: shares of the client's secrets for each neighbor, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    /// One a neighbor.
    pub envelopes: Vec<Envelope>,
}

/// Round 2, server to client: the shares that its neighbors sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbox {
    /// One a neighbor that shared its secrets.
    pub envelopes: Vec<Envelope>,
}

/// Round 2, client to server, with the masked vector: with whom it shares masks. Signed for each
/// of them, so that none reveals a share of a client that a server made share masks with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Included {
    /// The senders of the client's [`Inbox`], in its order, each with an Ed25519 signature of
    /// session id, roster, the client's number and the sender's.
    pub signatures: Vec<(u32, [u8; 64])>,
}

/// Round 3, server to client: whose vectors are in the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivors {
    /// Their numbers.
    pub members: Vec<u32>,
}

/// Round 3, client to server: its signature of the set of survivors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// Ed25519 signature of session id, roster and survivors.
    pub signature: [u8; 64],
}

/// Round 4, server to client: who confirmed the set of survivors, and which shares it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Confirmations of the client's neighbors, with their numbers.
    pub confirmations: Vec<(u32, [u8; 64])>,
    /// Of each other survivor in `own_masks`, that it shares masks with this client.
    pub included: Vec<(u32, [u8; 64])>,
    /// Survivors whose own masks are to be removed.
    pub own_masks: Vec<u32>,
    /// Dropped clients whose pair keys are to be found.
    pub pair_keys: Vec<u32>,
}

/// Round 4, client to server: the shares asked for, in the request's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reveal {
    /// Shares of the seeds of own masks.
    pub own_masks: Vec<Share>,
    /// Shares of pair keys.
    pub pair_keys: Vec<Share>,
}

/// Takes a message apart.
struct Reader<'a> {
    message: &'static str,
    bytes: &'a [u8],
    read: usize,
}

impl<'a> Reader<'a> {
    fn new(message: &'static str, bytes: &'a [u8], limit: usize) -> Result<Self, Malformed> {
        if bytes.len() > limit {
            return Err(Malformed::Length { message, bytes: bytes.len(), expected: limit });
        }
        Ok(Reader { message, bytes, read: 0 })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some(array) = self.bytes[self.read..].first_chunk::<N>() else {
            return Err(self.length(self.read + N));
        };
        self.read += N;
        Ok(*array)
    }

    fn length(&self, expected: usize) -> Malformed {
        Malformed::Length { message: self.message, bytes: self.bytes.len(), expected }
    }

    fn number(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn member(&mut self) -> Result<u32, Malformed> {
        let member = self.number()?;
        if member as usize >= MAX_MEMBERS {
            return Err(Malformed::Member { message: self.message, member, limit: MAX_MEMBERS });
        }
        Ok(member)
    }

    fn share(&mut self) -> Result<Share, Malformed> {
        let bytes = zeroize::Zeroizing::new(self.array()?);
        Share::from_bytes(&bytes).ok_or(Malformed::Field { message: self.message })
    }

    /// A list of entries that take `entry` bytes each.
    fn list<T>(
        &mut self,
        entry: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.number()?;
        if count as usize > MAX_MEMBERS {
            return Err(Malformed::Count { message: self.message, count, limit: MAX_MEMBERS });
        }
        let end = self.read + count as usize * entry;
        if end > self.bytes.len() {
            return Err(self.length(end));
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn end(self) -> Result<(), Malformed> {
        if self.read == self.bytes.len() { Ok(()) } else { Err(self.length(self.read)) }
    }
}

fn write_list<T>(bytes: &mut Vec<u8>, list: &[T], mut write: impl FnMut(&T, &mut Vec<u8>)) {
    bytes.extend_from_slice(&(list.len() as u32).to_le_bytes());
    list.iter().for_each(|entry| write(entry, bytes));
}

fn write_number(number: &u32, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn write_envelope(envelope: &Envelope, bytes: &mut Vec<u8>) {
    write_number(&envelope.member, bytes);
    bytes.extend_from_slice(&envelope.sealed);
}

fn write_share(share: &Share, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&*share.to_bytes());
}

/// Bytes of a signature with its signer's number.
const SIGNED_BYTES: usize = 68;

fn write_signature((member, signature): &(u32, [u8; 64]), bytes: &mut Vec<u8>) {
    write_number(member, bytes);
    bytes.extend_from_slice(signature);
}

fn read_signature(reader: &mut Reader) -> Result<(u32, [u8; 64]), Malformed> {
    Ok((reader.member()?, reader.array()?))
}

fn read_envelope(reader: &mut Reader) -> Result<Envelope, Malformed> {
    Ok(Envelope { member: reader.member()?, sealed: reader.array()? })
}

/// Bytes of a list of the largest cohort.
const fn list_limit(entry: usize) -> usize {
    4 + MAX_MEMBERS * entry
}

/// A message's limit, its lists with what writes an entry, the bytes of one, and what reads it.
macro_rules! lists {
    ($message:ident, $name:literal, $($field:ident: $write:expr, $bytes:expr, $read:expr;)+) => {
        impl Message for $message {
            const LIMIT: usize = $(list_limit($bytes) +)+ 0;

            fn encode(&self) -> Vec<u8> {
                let size = $(4 + self.$field.len() * $bytes +)+ 0;
                let mut bytes = Vec::with_capacity(size);
                $(write_list(&mut bytes, &self.$field, $write);)+
                bytes
            }

            fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
                let mut reader = Reader::new($name, bytes, Self::LIMIT)?;
                let message = $message { $($field: reader.list($bytes, $read)?,)+ };
                reader.end()?;
                Ok(message)
            }
        }
    };
}

lists! {
    Roster, "roster",
    members: Advertisement::write, Advertisement::BYTES, Advertisement::read;
}
lists! {
    Shares, "list of shares",
    envelopes: write_envelope, 4 + SEALED_BYTES, read_envelope;
}
lists! {
    Inbox, "inbox",
    envelopes: write_envelope, 4 + SEALED_BYTES, read_envelope;
}
lists! {
    Included, "list of those included",
    signatures: write_signature, SIGNED_BYTES, read_signature;
}
lists! {
    Survivors, "list of survivors",
    members: write_number, 4, Reader::member;
}
lists! {
    Request, "request",
    confirmations: write_signature, SIGNED_BYTES, read_signature;
    included: write_signature, SIGNED_BYTES, read_signature;
    own_masks: write_number, 4, Reader::member;
    pair_keys: write_number, 4, Reader::member;
}
lists! {
    Reveal, "reveal",
    own_masks: write_share, Share::BYTES, Reader::share;
    pair_keys: write_share, Share::BYTES, Reader::share;
}

impl Message for Advertisement {
    const LIMIT: usize = Self::BYTES;

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        self.write(&mut bytes);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("advertisement", bytes, Self::LIMIT)?;
        let message = Self::read(&mut reader)?;
        reader.end()?;
        Ok(message)
    }
}

impl Message for Confirmation {
    const LIMIT: usize = 64;

    fn encode(&self) -> Vec<u8> {
        self.signature.to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("confirmation", bytes, Self::LIMIT)?;
        let message = Confirmation { signature: reader.array()? };
        reader.end()?;
        Ok(message)
    }
}

/// Decodes bytes as every kind of message, for fuzzing: whatever they are, this returns, and
/// what decodes encodes to the same bytes.
///
/// # Panics
/// If it doesn't.
pub fn decode_any(bytes: &[u8]) {
    fn check<M: Message>(bytes: &[u8]) {
        if let Ok(message) = M::decode(bytes) {
            assert!(message.encode() == bytes, "a message with two encodings");
        }
    }
    check::<Advertisement>(bytes);
    check::<Roster>(bytes);
    check::<Shares>(bytes);
    check::<Inbox>(bytes);
    check::<Included>(bytes);
    check::<Survivors>(bytes);
    check::<Confirmation>(bytes);
    check::<Request>(bytes);
    check::<Reveal>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn share(limb: u64) -> Share {
        let mut bytes = [0; Share::BYTES];
        bytes[8..16].copy_from_slice(&limb.to_le_bytes());
        Share::from_bytes(&bytes).unwrap()
    }

    fn request() -> Request {
        Request {
            confirmations: vec![(3, [7; 64])],
            included: vec![(1, [5; 64]), (2, [6; 64])],
            own_masks: vec![1, 2],
            pair_keys: vec![0],
        }
    }

    #[test]
    fn truncated_and_extended_messages_are_refused() {
        let bytes = request().encode();
        assert_eq!(Request::decode(&bytes), Ok(request()));
        for end in 0..bytes.len() {
            let refused = Request::decode(&bytes[..end]);
            assert!(matches!(refused, Err(Malformed::Length { .. })), "{end} {refused:?}");
        }
        let longer = [&bytes[..], &[0]].concat();
        let expected = bytes.len();
        let refused = Malformed::Length { message: "request", bytes: expected + 1, expected };
        assert_eq!(Request::decode(&longer), Err(refused));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let limit = MAX_MEMBERS;
        let count = u32::MAX;
        let refused = Malformed::Count { message: "inbox", count, limit };
        assert_eq!(Inbox::decode(&count.to_le_bytes()), Err(refused));
        let member = MAX_MEMBERS as u32;
        let named = Survivors { members: vec![member] }.encode();
        let refused = Malformed::Member { message: "list of survivors", member, limit };
        assert_eq!(Survivors::decode(&named), Err(refused));
        let mut reveal = Reveal { own_masks: vec![share(1)], pair_keys: vec![] }.encode();
        reveal[11] = 0xff;
        let refused = Malformed::Field { message: "reveal" };
        assert_eq!(Reveal::decode(&reveal), Err(refused));
        let long = vec![0; Survivors::LIMIT + 1];
        assert!(matches!(Survivors::decode(&long), Err(Malformed::Length { .. })));
    }

    proptest! {
        #[test]
        fn messages_survive_their_bytes(
            confirmations in vec((0..MAX_MEMBERS as u32, any::<u8>()), 0..9),
            members in vec(0..MAX_MEMBERS as u32, 0..9),
            limbs in vec(0..(1u64 << 61) - 1, 0..9),
            byte: u8,
        ) {
            let signatures: Vec<_> = confirmations.into_iter().map(|(m, b)| (m, [b; 64])).collect();
            let included = Included { signatures: signatures.clone() };
            prop_assert_eq!(Included::decode(&included.encode()), Ok(included));
            let request = Request {
                confirmations: signatures.clone(),
                included: signatures,
                own_masks: members.clone(),
                pair_keys: members.clone(),
            };
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
            let shares: Vec<Share> = limbs.into_iter().map(share).collect();
            let reveal = Reveal { own_masks: shares.clone(), pair_keys: shares };
            prop_assert_eq!(Reveal::decode(&reveal.encode()), Ok(reveal));
            let keys = Advertisement {
                identity: [byte; 32],
                cipher: [1; 32],
                pair: [2; 32],
                commitment: [3; 32],
                samples: 70_000,
                signature: [4; 64],
            };
            prop_assert_eq!(Advertisement::decode(&keys.encode()), Ok(keys.clone()));
            let roster = Roster { members: vec![keys; members.len()] };
            prop_assert_eq!(Roster::decode(&roster.encode()), Ok(roster));
            let envelope = |member: &u32| Envelope { member: *member, sealed: [byte; SEALED_BYTES] };
            let envelopes: Vec<Envelope> = members.iter().map(envelope).collect();
            let shares = Shares { envelopes: envelopes.clone() };
            prop_assert_eq!(Shares::decode(&shares.encode()), Ok(shares));
            let inbox = Inbox { envelopes };
            prop_assert_eq!(Inbox::decode(&inbox.encode()), Ok(inbox));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in vec(any::<u8>(), 0..400)) {
            decode_any(&bytes);
        }

        #[test]
        fn bytes_with_small_counts_decode_or_are_refused(
            counts in vec(0u8..4, 1..4),
            bytes in vec(any::<u8>(), 0..500),
        ) {
            let mut message = bytes;
            for (i, count) in counts.into_iter().enumerate() {
                let at = 68 * i;
                if let Some(bytes) = message.get_mut(at..at + 4) {
                    bytes.copy_from_slice(&u32::from(count).to_le_bytes());
                }
            }
            decode_any(&message);
        }
    }
}
