//! The clients of a simulation: names, and the samples of each.

use std::ops::Range;

use tern_engine::{Device, RowData, TextData, TextWindows};

use tern_protocol::coordinator::Candidate;
use tern_protocol::trainer::LocalData;
use tern_protocol::{ClientId, Digest, Error, Result};

/// Clients and their data, which is on the device as one set.
#[derive(Clone)]
pub struct Population {
    data: LocalData,
    members: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    id: ClientId,
    part: Range<usize>,
}

impl Population {
    /// Clients that have rows of `features` `[N, width]` with a class below `classes` each;
    /// `parts` has the rows of each client.
    ///
    /// # Errors
    /// [`Error::Value`] for no clients or a row that isn't there; the engine's for data that
    /// makes no sense.
    pub fn rows(
        device: &Device,
        (features, width): (&[f32], usize),
        labels: &[u32],
        classes: usize,
        parts: &[Vec<usize>],
    ) -> Result<Self> {
        let order = parts.concat();
        if let Some(row) = order.iter().find(|row| **row >= labels.len()) {
            return Err(Error::value("row of a client", row, format!("below {}", labels.len())));
        }
        if features.len() != width * labels.len() {
            let expected = format!("{width} for each of {} labels", labels.len());
            return Err(Error::value("number of features", features.len(), expected));
        }
        // A client's rows side by side, so that a range names them.
        let x: Vec<f32> =
            order.iter().flat_map(|row| &features[row * width..][..width]).copied().collect();
        let y: Vec<u32> = order.iter().map(|row| labels[*row]).collect();
        let data = RowData::upload(device, &x, width, &y, classes)?;
        let mut end = 0;
        let ranges = parts.iter().map(|part| {
            end += part.len();
            end - part.len()..end
        });
        Self::new(LocalData::Rows(data), ranges.collect())
    }

    /// Clients that have a text each, as tokens below `vocabulary`, cut into windows of `steps`.
    ///
    /// # Errors
    /// [`Error::Value`] for no clients; the engine's for data that makes no sense.
    pub fn texts(
        device: &Device,
        texts: &[Vec<u32>],
        vocabulary: usize,
        steps: usize,
    ) -> Result<Self> {
        Self::passages(device, &texts.chunks(1).collect::<Vec<_>>(), vocabulary, steps)
    }

    /// [`Population::texts`] where each client has several texts, lines say: no window goes from
    /// one to the next.
    ///
    /// # Errors
    /// As [`Population::texts`].
    pub fn passages<T: AsRef<[Vec<u32>]>>(
        device: &Device,
        clients: &[T],
        vocabulary: usize,
        steps: usize,
    ) -> Result<Self> {
        let texts: Vec<&Vec<u32>> = clients.iter().flat_map(AsRef::as_ref).collect();
        let data = TextData::upload(device, &texts, TextWindows::new(vocabulary, steps))?;
        let (mut windows, mut end) = (data.parts().iter(), 0);
        let part = |client: &T| {
            let start = end;
            let own = windows.by_ref().take(client.as_ref().len());
            end = own.last().map_or(start, |last| last.end);
            start..end
        };
        let parts = clients.iter().map(part).collect();
        Self::new(LocalData::Text(data), parts)
    }

    fn new(data: LocalData, parts: Vec<Range<usize>>) -> Result<Self> {
        if parts.is_empty() {
            return Err(Error::value("clients", 0, "at least one"));
        }
        let members = parts.into_iter().enumerate();
        let members = members.map(|(number, part)| Member { id: ClientId::numbered(number), part });
        Ok(Population { data, members: members.collect() })
    }

    /// The same clients under other names, those of a network say: one a client.
    ///
    /// # Errors
    /// [`Error::Value`] for another number of names, or one given twice.
    pub fn named(mut self, names: &[ClientId]) -> Result<Self> {
        if names.len() != self.members.len() {
            let expected = format!("{}, one a client", self.members.len());
            return Err(Error::value("names", names.len(), expected));
        }
        for (member, name) in self.members.iter_mut().zip(names) {
            member.id = *name;
        }
        // In the order of names: that is how a server selects.
        self.members.sort_by_key(|member| member.id);
        match self.members.windows(2).find(|pair| pair[0].id == pair[1].id) {
            Some(pair) => Err(Error::value("name of two clients", pair[0].id, "one a client")),
            None => Ok(self),
        }
    }

    /// Number of clients.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none; there never are.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Samples of all clients.
    pub fn samples(&self) -> usize {
        self.members.iter().map(|member| member.part.len()).sum()
    }

    /// SHA-256 of who they are and which of the samples are whose.
    pub(super) fn digest(&self) -> Digest {
        let member = |member: &Member| {
            let [start, end] = [member.part.start, member.part.end].map(|at| at as u64);
            [&member.id.0[..], &start.to_le_bytes(), &end.to_le_bytes()].concat()
        };
        Digest::of(&self.members.iter().flat_map(member).collect::<Vec<u8>>())
    }

    /// All data.
    pub(super) fn data(&self) -> &LocalData {
        &self.data
    }

    /// A client's name.
    pub fn id(&self, client: usize) -> ClientId {
        self.members[client].id
    }

    /// A client's samples among all.
    pub(super) fn part(&self, client: usize) -> &Range<usize> {
        &self.members[client].part
    }

    /// The client of a name.
    pub(super) fn find(&self, id: &ClientId) -> Option<usize> {
        self.members.binary_search_by(|member| member.id.cmp(id)).ok()
    }

    /// Everyone who has samples, for the selection.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let candidate = |member: &Member| Candidate {
            client: member.id,
            samples: u32::try_from(member.part.len()).unwrap_or(u32::MAX),
        };
        let members = self.members.iter().filter(|member| !member.part.is_empty());
        members.map(candidate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_have_their_rows_and_names_in_order() {
        let device = Device::cpu();
        let features: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let parts = [vec![4, 0], vec![], vec![2, 3, 1]];
        let clients =
            Population::rows(&device, (&features, 2), &[0, 1, 0, 1, 0], 2, &parts).unwrap();
        assert_eq!((clients.len(), clients.samples()), (3, 5));
        assert_eq!([0, 1, 2].map(|c| clients.part(c).clone()), [0..2, 2..2, 2..5]);
        let candidates = clients.candidates();
        assert!(candidates.is_sorted_by(|a, b| a.client < b.client));
        assert_eq!(candidates.iter().map(|c| c.samples).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(clients.find(&clients.id(2)), Some(2));
        assert_eq!(clients.find(&ClientId::numbered(3)), None);
        let named = clients.clone().named(&[7, 5, 6].map(ClientId::numbered)).unwrap();
        assert_eq!([0, 1, 2].map(|c| named.part(c).clone()), [2..2, 2..5, 0..2]);
        assert_eq!(named.find(&ClientId::numbered(7)), Some(2));
        assert!(clients.clone().named(&[7, 5, 7].map(ClientId::numbered)).is_err());
        assert!(clients.named(&[7, 5].map(ClientId::numbered)).is_err());
        let wrong = Population::rows(&device, (&features, 2), &[0; 5], 2, &[vec![5]]);
        assert!(wrong.err().unwrap().to_string().contains("row of a client is 5"));
        assert!(Population::rows(&device, (&features, 2), &[0; 5], 2, &[]).is_err());
    }

    #[test]
    fn passages_of_a_client_are_windows_of_their_own() {
        let lines = |lens: &[usize]| lens.iter().map(|len| vec![1; *len]).collect::<Vec<_>>();
        // 3 windows; nobody's; one line too short for a window among others.
        let clients = [lines(&[11, 12]), lines(&[]), lines(&[1]), lines(&[5, 1, 5])];
        let clients = Population::passages(&Device::cpu(), &clients, 4, 10).unwrap();
        let sizes: Vec<_> = clients.members.iter().map(|member| member.part.clone()).collect();
        assert_eq!(sizes, [0..3, 3..3, 3..3, 3..5]);
        let none: [Vec<Vec<u32>>; 0] = [];
        assert!(Population::passages(&Device::cpu(), &none, 4, 10).is_err());
    }

    #[test]
    fn texts_are_windows() {
        let texts = [vec![1; 21], vec![2], vec![3; 5]];
        let clients = Population::texts(&Device::cpu(), &texts, 4, 10).unwrap();
        assert_eq!([0, 1, 2].map(|c| clients.part(c).clone()), [0..2, 2..2, 2..3]);
    }
}
