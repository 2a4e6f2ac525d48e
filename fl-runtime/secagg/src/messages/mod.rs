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

/// Half of a SHA-256 of a share that says whose of whose secret it is: to find another share with
/// the same takes 2^128 tries, and to find the share is to guess 305 uniform bits.
pub type Commitment = [u8; 16];

/// Shares of one client's two secrets, sealed for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The receiver on the way to the server, the sender on the way from it.
    pub member: u32,
    /// Ciphertext and tag.
    pub sealed: [u8; SEALED_BYTES],
    /// Of the share of its pair key in it.
    pub pair: Commitment,
    /// Of the share of its own mask's seed in it.
    pub own: Commitment,
    /// Ed25519 signature of session id, roster, sender, receiver and all of the above.
    pub signature: [u8; 64],
}

impl Envelope {
    const BYTES: usize = 4 + SEALED_BYTES + 16 + 16 + 64;

    fn write(&self, bytes: &mut Vec<u8>) {
        write_number(&self.member, bytes);
        bytes.extend_from_slice(&self.sealed);
        bytes.extend_from_slice(&self.pair);
        bytes.extend_from_slice(&self.own);
        bytes.extend_from_slice(&self.signature);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Envelope {
            member: reader.member()?,
            sealed: reader.array()?,
            pair: reader.array()?,
            own: reader.array()?,
            signature: reader.array()?,
        })
    }
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

/// That a neighbor's envelope, properly signed, doesn't hold the shares that it commits to. Shows
/// the secret from which the keys of this envelope and of the one in the other direction follow;
/// whom the complaint is right about knows what is in either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The envelope's sender.
    pub member: u32,
    /// What the two share by their keys for envelopes, an Edwards point.
    pub shared: [u8; 32],
    /// That it is: challenge and response.
    pub proof: [u8; 64],
}

impl Complaint {
    const BYTES: usize = 100;

    fn write(&self, bytes: &mut Vec<u8>) {
        write_number(&self.member, bytes);
        bytes.extend_from_slice(&self.shared);
        bytes.extend_from_slice(&self.proof);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let (member, shared, proof) = (reader.member()?, reader.array()?, reader.array()?);
        Ok(Complaint { member, shared, proof })
    }
}

/// Round 2, client to server: which envelopes of the inbox are garbage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaints {
    /// About one sender each, ascending; none if all is well.
    pub complaints: Vec<Complaint>,
}

/// Round 3, server to client: with whom it is to share masks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partners {
    /// Its neighbors that are still in the session.
    pub members: Vec<u32>,
}

/// Round 3, client to server, with the masked vector: with whom it shares masks. Signed for each
/// of them, so that none reveals a share of a client that a server made share masks with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Included {
    /// The client's [`Partners`], in their order, each with an Ed25519 signature of
    /// session id, roster, job, the client's number and the partner's.
    pub signatures: Vec<(u32, [u8; 64])>,
}

/// Round 4, server to client: whose vectors are in the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivors {
    /// Their numbers.
    pub members: Vec<u32>,
}

/// Round 4, client to server: its signature of the set of survivors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// Ed25519 signature of session id, roster and survivors.
    pub signature: [u8; 64],
}

/// Round 5, server to client: who confirmed the set of survivors, and which shares it wants.
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

/// Round 5, client to server: the shares asked for, in the request's order.
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
    envelopes: Envelope::write, Envelope::BYTES, Envelope::read;
}
lists! {
    Inbox, "inbox",
    envelopes: Envelope::write, Envelope::BYTES, Envelope::read;
}
lists! {
    Complaints, "list of complaints",
    complaints: Complaint::write, Complaint::BYTES, Complaint::read;
}
lists! {
    Partners, "list of partners",
    members: write_number, 4, Reader::member;
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
    check::<Complaints>(bytes);
    check::<Partners>(bytes);
    check::<Included>(bytes);
    check::<Survivors>(bytes);
    check::<Confirmation>(bytes);
    check::<Request>(bytes);
    check::<Reveal>(bytes);
}

#[cfg(test)]
mod tests;
