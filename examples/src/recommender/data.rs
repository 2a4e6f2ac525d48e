//! What the terminals hold: customers, and samples made of them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow, bail, ensure};
use tern_fl::simulate::files::{BadLine, Record, Table};

/// One customer in this many is held out, at every terminal.
const HELD_OUT: usize = 5;

/// What numbers that describe customers are divided by: the classes of CoIL 2000 go up to 10.
const LARGEST: f32 = 10.0;

/// CoIL's columns by what they are; columns of other files keep their names.
const NAMES: [(&str, &str); 21] = [
    ("PWAPART", "private third-party liability"),
    ("PWABEDR", "third-party liability of firms"),
    ("PWALAND", "third-party liability in agriculture"),
    ("PPERSAUT", "car"),
    ("PBESAUT", "delivery van"),
    ("PMOTSCO", "motorcycle"),
    ("PVRAAUT", "lorry"),
    ("PAANHANG", "trailer"),
    ("PTRACTOR", "tractor"),
    ("PWERKT", "agricultural machines"),
    ("PBROM", "moped"),
    ("PLEVEN", "life"),
    ("PPERSONG", "private accident"),
    ("PGEZONG", "family accident"),
    ("PWAOREG", "disability"),
    ("PBRAND", "fire"),
    ("PZEILPL", "surfboard"),
    ("PPLEZIER", "boat"),
    ("PFIETS", "bicycle"),
    ("PINBOED", "property"),
    ("PBYSTAND", "social security"),
];

/// A customer as the terminal knows them.
#[derive(Clone, Debug, PartialEq)]
pub struct Customer {
    /// Numbers that describe them, about 0 to 1.
    pub profile: Vec<f32>,
    /// What they pay for each product, as a class; 0 for one that they don't own.
    pub holdings: Vec<f32>,
}

impl Customer {
    /// Whether they own a product.
    pub fn owns(&self, product: usize) -> bool {
        self.holdings[product] > 0.0
    }

    /// What a model sees of them: the profile, and of each product whether it is owned and in
    /// which class; `masked` is hidden.
    pub fn features(&self, masked: Option<usize>) -> Vec<f32> {
        let visible = |(product, class): (usize, &f32)| match masked == Some(product) {
            true => 0.0,
            false => *class,
        };
        let holdings: Vec<f32> = self.holdings.iter().enumerate().map(visible).collect();
        let owned = holdings.iter().map(|class| f32::from(u8::from(*class > 0.0)));
        let classes = holdings.iter().map(|class| class / LARGEST);
        self.profile.iter().copied().chain(owned).chain(classes).collect()
    }
}

/// A sample: a customer one of whose products is masked, which is the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The customer, by number.
    pub customer: usize,
    /// The product.
    pub product: usize,
}

/// A terminal and its customers.
#[derive(Clone, Debug, PartialEq)]
pub struct Terminal {
    /// What the first column says.
    pub name: String,
    /// What it trains on.
    pub training: Vec<Sample>,
    /// What nothing is trained on.
    pub held_out: Vec<Sample>,
}

/// All of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Names of the products.
    pub products: Vec<String>,
    /// All customers.
    pub customers: Vec<Customer>,
    /// Terminals that take part, in the order of the file.
    pub terminals: Vec<Terminal>,
    /// Terminals that can't take part, and why.
    pub refused: Vec<(String, String)>,
    /// Lines of nobody's, and why.
    pub left_out: Vec<String>,
}

/// The customers of a terminal, as they are read.
struct Group {
    name: String,
    /// Line of the first.
    line: usize,
    members: Vec<usize>,
    /// Why the terminal can't take part, if a line of it can't be read.
    broken: Option<String>,
}

/// What a column holds.
#[derive(Clone, Copy, PartialEq)]
enum Column {
    Profile,
    Product,
    Other,
}

impl Data {
    /// 3.1: what each terminal has collected. A terminal with a line that can't be read, with
    /// nothing to train on or with one product only does not take part; the others do. A line
    /// that says no terminal is left out alone.
    ///
    /// # Errors
    /// For a file that can't be read, columns that are none, fewer than three terminals that can
    /// take part, and nobody to hold out; naming the file and the line.
    pub fn load(path: &Path) -> Result<Self> {
        let at = |line: usize| format!("{}:{line}", path.display());
        let table = Table::open(path)?;
        let names = table.names();
        let columns: Vec<Column> = names.iter().map(|name| column(name)).collect();
        let products = names.iter().zip(&columns).skip(1);
        let products: Vec<String> = products
            .filter(|(_, column)| **column == Column::Product)
            .map(|(name, _)| called(name))
            .collect();
        ensure!(
            products.len() > 1,
            "{}: {} columns `P...`, expected two products or more",
            path.display(),
            products.len()
        );
        let mut data = Data {
            products,
            customers: Vec::new(),
            terminals: Vec::new(),
            refused: Vec::new(),
            left_out: Vec::new(),
        };
        let mut groups: Vec<Group> = Vec::new();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        let mut lines = table.records();
        while let Some(record) = lines.read()? {
            let (line, name) = match &record {
                Ok(Record { line, fields }) => (*line, fields[0].trim()),
                Err(bad) => (bad.line, bad.says(0).unwrap_or_default()),
            };
            if name.is_empty() {
                let nobody = "no terminal in the first column".to_owned();
                let reason = record.err().map_or(nobody, |bad| bad.reason);
                data.left_out.push(format!("{}: {reason}", at(line)));
                continue;
            }
            let name = name.to_owned();
            let place = *places.entry(name.clone()).or_insert_with(|| {
                groups.push(Group { name, line, members: Vec::new(), broken: None });
                groups.len() - 1
            });
            let group = &mut groups[place];
            let customer = match record {
                Ok(Record { fields, .. }) => customer(&trimmed(&fields), names, &columns),
                Err(BadLine { reason, .. }) => Err(anyhow!(reason)),
            };
            match customer {
                Ok(customer) => {
                    group.members.push(data.customers.len());
                    data.customers.push(customer);
                }
                Err(reason) => {
                    group.broken.get_or_insert_with(|| format!("{}: {reason}", at(line)));
                }
            }
        }
        for Group { name, line, members, broken } in groups {
            let terminal = data.terminal(&name, &members);
            let first = terminal.training.first().map(|sample| sample.product);
            let reason = match first {
                _ if broken.is_some() => broken,
                None => Some(format!("{}: no customer with a product to train on", at(line))),
                Some(product) if terminal.training.iter().all(|s| s.product == product) => {
                    let (count, product) = (terminal.training.len(), &data.products[product]);
                    let what =
                        format!("all {count} samples to train on have the product {product}");
                    Some(format!("{}: {what}, expected two products or more", at(line)))
                }
                Some(_) => None,
            };
            match reason {
                Some(reason) => data.refused.push((name, reason)),
                None => data.terminals.push(terminal),
            }
        }
        let reasons = data.refused.iter().map(|(_, why)| why).chain(&data.left_out);
        let reasons: String = reasons.map(|why| format!("; {why}")).collect();
        let count = data.terminals.len();
        ensure!(
            count >= 3,
            "{}: {count} terminals that can take part, expected three or more{reasons}",
            path.display()
        );
        ensure!(
            data.terminals.iter().any(|terminal| !terminal.held_out.is_empty()),
            "{}: no terminal has {HELD_OUT} customers with a product, expected some to hold out \
             every fifth{reasons}",
            path.display()
        );
        Ok(data)
    }

    /// Some customers of a terminal are held out: every fifth of those with a product.
    fn terminal(&self, name: &str, members: &[usize]) -> Terminal {
        let owner = |customer: &&usize| {
            (0..self.products.len()).any(|p| self.customers[**customer].owns(p))
        };
        let mut terminal =
            Terminal { name: name.into(), training: Vec::new(), held_out: Vec::new() };
        for (number, customer) in members.iter().filter(owner).enumerate() {
            let owned = (0..self.products.len()).filter(|p| self.customers[*customer].owns(*p));
            let samples = owned.map(|product| Sample { customer: *customer, product });
            match number % HELD_OUT == HELD_OUT - 1 {
                true => terminal.held_out.extend(samples),
                false => terminal.training.extend(samples),
            }
        }
        terminal
    }

    /// Numbers that a model sees of a customer.
    pub fn width(&self) -> usize {
        self.customers[0].features(None).len()
    }

    /// The features of samples, one after the other, and their targets.
    pub fn rows(&self, samples: &[Sample]) -> (Vec<f32>, Vec<u32>) {
        let features = samples
            .iter()
            .flat_map(|s| self.customers[s.customer].features(Some(s.product)))
            .collect();
        (features, samples.iter().map(|s| s.product as u32).collect())
    }

    /// The held-out samples of all terminals.
    pub fn held_out(&self) -> Vec<Sample> {
        self.terminals.iter().flat_map(|terminal| terminal.held_out.iter().copied()).collect()
    }

    /// How many training samples have each product as their target.
    pub fn popularity(&self) -> Vec<f32> {
        let mut counts = vec![0.0; self.products.len()];
        for sample in self.terminals.iter().flat_map(|terminal| &terminal.training) {
            counts[sample.product] += 1.0;
        }
        counts
    }
}

fn trimmed(fields: &[String]) -> Vec<&str> {
    fields.iter().map(|field| field.trim()).collect()
}

fn column(name: &str) -> Column {
    match name.chars().next() {
        Some('P') if name != "Purchase" => Column::Product,
        Some('A') | Some('P') | None => Column::Other,
        Some(_) => Column::Profile,
    }
}

fn called(name: &str) -> String {
    let known = NAMES.iter().find(|(column, _)| *column == name);
    known.map_or(name, |(_, words)| words).to_owned()
}

fn customer(values: &[&str], names: &[String], columns: &[Column]) -> Result<Customer> {
    let mut customer = Customer { profile: Vec::new(), holdings: Vec::new() };
    // The first column is the terminal's.
    for at in 1..values.len() {
        let (value, name) = (values[at], &names[at]);
        let number = || match value.parse::<f32>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => bail!("{name} is `{value}`, expected a finite number"),
        };
        match columns[at] {
            Column::Profile => customer.profile.push(number()? / LARGEST),
            Column::Product => {
                let class = number()?;
                ensure!(class >= 0.0, "{name} is {value}, expected 0 or more");
                customer.holdings.push(class);
            }
            Column::Other => {}
        }
    }
    Ok(customer)
}
