//! The server's live view in a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Axis, Block, Cell, Chart, Dataset, GraphType, LineGauge, Paragraph, Row, Table, Wrap,
};
use tern_fl::server::federation::{Failed, Missing};
use tern_fl::server::http::{Board, Page};

/// Time between two pictures.
const REFRESH: Duration = Duration::from_millis(250);
/// Rounds in the table.
const ROUNDS: usize = 8;

/// Whether standard output is a terminal that can show a view.
pub fn possible() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Shows the board until `done` says so or the user presses q or Ctrl-C; `title` says where
/// the server is.
///
/// # Errors
/// The terminal's.
pub fn show(board: &Board, title: &str, done: impl Fn() -> bool) -> std::io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let result = loop {
        let page = board.page();
        if let Err(error) = terminal.draw(|frame| draw(frame, &page, title)) {
            break Err(error);
        }
        match asked_to_leave() {
            Ok(false) if !done() => {}
            Ok(_) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    ratatui::restore();
    result
}

/// Waits for a key until the next picture is due.
fn asked_to_leave() -> std::io::Result<bool> {
    if !event::poll(REFRESH)? {
        return Ok(false);
    }
    Ok(match event::read()? {
        Event::Key(key) if key.kind == KeyEventKind::Press => {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            matches!(key.code, KeyCode::Char('q')) || control && key.code == KeyCode::Char('c')
        }
        _ => false,
    })
}

fn draw(frame: &mut Frame<'_>, page: &Page, title: &str) {
    let members = (page.cohort.len().div_ceil(8) as u16).clamp(1, 4);
    let [head, live, charts, table] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(3 + members),
        Constraint::Min(8),
        Constraint::Length(ROUNDS as u16 + 3),
    ])
    .areas(frame.area());
    frame.render_widget(header(page, title), head);
    round(frame, page, live);
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(charts);
    let names = page.metrics();
    curve(frame, page, left, names.first().map_or(page.metric.as_str(), |n| n), Color::Cyan);
    match names.get(1) {
        Some(name) => curve(frame, page, right, name, Color::Yellow),
        None => frame.render_widget(Block::bordered(), right),
    }
    // Nothing failed, and nothing is shown of it.
    let trouble = if page.failed.is_empty() && page.excluded.is_empty() { 0 } else { 2 };
    let [left, middle, right] =
        Layout::horizontal([Constraint::Fill(2), Constraint::Fill(trouble), Constraint::Fill(1)])
            .areas(table);
    frame.render_widget(rounds(page), left);
    if trouble > 0 {
        frame.render_widget(failed(page), middle);
    }
    frame.render_widget(refused(page), right);
}

fn header<'a>(page: &'a Page, title: &'a str) -> Paragraph<'a> {
    let best = page.best.map_or("–".into(), |b| format!("{:.4} in round {}", b.score, b.round));
    let few = match page.enrolled < page.asked as usize {
        true => format!(", {} are asked for", page.asked),
        false => String::new(),
    };
    let facts = format!(
        "{} of {} rounds · {} of {} online{few} · received {} · sent {} · best {} {best}",
        page.committed,
        page.rounds,
        page.online,
        page.enrolled,
        bytes(page.bytes_up),
        bytes(page.bytes_down),
        page.metric,
    );
    Paragraph::new(vec![
        Line::from(vec![page.name.as_str().bold(), "  ".into(), title.dim(), "  q quits".dim()]),
        facts.into(),
    ])
}

fn round(frame: &mut Frame<'_>, page: &Page, area: Rect) {
    let left = page.seconds_left.map_or(String::new(), |s| format!(", {s:.0} s left"));
    let title = match page.finished {
        true => " finished ".to_owned(),
        false => format!(" round {} attempt {}, {}{left} ", page.round, page.attempt, page.phase),
    };
    let block = Block::bordered().title(title);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let [bar, who] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(inside);
    let part = page.arrived as f64 / page.needed.max(1) as f64;
    let gauge = LineGauge::default()
        .ratio(part.clamp(0.0, 1.0))
        .label(format!("{} of {} updates", page.arrived, page.needed))
        .filled_style(Style::new().fg(Color::Green));
    frame.render_widget(gauge, bar);
    let members = page.cohort.iter().flat_map(|member| {
        let name: String = member.client.to_string().chars().take(8).collect();
        let style = if member.arrived { Style::new().fg(Color::Green) } else { Style::new().dim() };
        [Span::styled(name, style), Span::raw(" ")]
    });
    let members = Line::from(members.collect::<Vec<_>>());
    frame.render_widget(Paragraph::new(members).wrap(Wrap { trim: true }), who);
}

fn curve(frame: &mut Frame<'_>, page: &Page, area: Rect, name: &str, color: Color) {
    let points: Vec<(f64, f64)> = page
        .history
        .iter()
        .filter_map(|row| Some((f64::from(row.round), *row.metrics.get(name)?)))
        .collect();
    let (first, last) = match points.as_slice() {
        [] => (0.0, 1.0),
        [first, .., last] => (first.0, last.0),
        [only] => (only.0, only.0 + 1.0),
    };
    let (mut low, mut high) = points
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p.1), h.max(p.1)));
    if low >= high {
        (low, high) = if low.is_finite() { (low - 0.5, low + 0.5) } else { (0.0, 1.0) };
    }
    let data = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(Style::new().fg(color))
        .data(&points);
    let dim = Style::new().dim();
    let chart = Chart::new(vec![data])
        .block(Block::bordered().title(format!(" {name} ")))
        .x_axis(
            Axis::default()
                .style(dim)
                .bounds([first, last])
                .labels([format!("{first:.0}"), format!("{last:.0}")]),
        )
        .y_axis(
            Axis::default()
                .style(dim)
                .bounds([low, high])
                .labels([format!("{low:.3}"), format!("{high:.3}")]),
        );
    frame.render_widget(chart, area);
}

fn rounds(page: &Page) -> Table<'_> {
    let score = |row: &tern_fl::server::http::Row| match row.metrics.get(&page.metric) {
        Some(value) => format!("{value:.4}"),
        None => "–".into(),
    };
    let lines = page.history.iter().rev().take(ROUNDS).map(|row| {
        Row::new([
            Cell::new(row.round.to_string()),
            Cell::new(score(row)),
            Cell::new(row.clients.to_string()),
            Cell::new(bytes(row.bytes_up)),
            Cell::new(bytes(row.bytes_down)),
            Cell::new(format!("{:.1} s", row.seconds)),
        ])
    });
    let head = ["round", page.metric.as_str(), "clients", "up", "down", "time"];
    Table::new(lines, [Constraint::Fill(1); 6])
        .header(Row::new(head).style(Style::new().dim()))
        .block(Block::bordered().title(" last rounds "))
}

/// Who is out, and attempts that failed, the last one first, with who was missing.
fn failed(page: &Page) -> Paragraph<'_> {
    let lines = page.failed.iter().rev().flat_map(|failed| {
        let Failed { round, attempt, phase, reason, missing } = failed;
        let what = format!("round {round} attempt {attempt}, {phase}: {reason}");
        let missing = missing.iter().map(|Missing { client, reason }| {
            let name: String = client.to_string().chars().take(8).collect();
            Line::from(format!("  {name} {}", reason.as_deref().unwrap_or("was silent"))).dim()
        });
        std::iter::once(Line::from(what)).chain(missing)
    });
    let out = page.excluded.iter().map(|(client, how)| {
        let name: String = client.to_string().chars().take(8).collect();
        Line::from(format!("{name} is out: {how}"))
    });
    Paragraph::new(out.chain(lines).collect::<Vec<_>>())
        .wrap(Wrap { trim: false })
        .block(Block::bordered().title(" failed attempts "))
}

fn refused(page: &Page) -> Table<'_> {
    let mut reasons: Vec<(&String, &u64)> = page.refused.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let overtaken: u64 = page.overtaken.values().sum();
    let late = (overtaken > 0).then_some(("came too late", overtaken));
    let late = late.map(|(name, count)| (name, count, Style::new().dim()));
    let refused = reasons.into_iter().map(|(name, count)| (name.as_str(), *count, Style::new()));
    let lines = late.into_iter().chain(refused).take(ROUNDS + 1).map(|(name, count, style)| {
        Row::new([Cell::new(name), Cell::new(count.to_string())]).style(style)
    });
    Table::new(lines, [Constraint::Fill(2), Constraint::Fill(1)])
        .block(Block::bordered().title(" refused "))
}

/// Bytes with a unit.
fn bytes(count: u64) -> String {
    let (mut value, mut unit) = (count as f64, 0);
    let units = ["B", "kB", "MB", "GB", "TB"];
    while value >= 1e3 && unit + 1 < units.len() {
        value /= 1e3;
        unit += 1;
    }
    let digits = if unit == 0 { 0 } else { 1 };
    format!("{value:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use tern_fl::server::http::{BestScore, Member};

    fn text(page: &Page, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, page, "https://host:1")).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>() + "\n";
        (0..height).map(line).collect()
    }

    #[test]
    fn the_view_shows_the_round_and_what_was_committed() {
        let row = |round: u32, loss: f64| tern_fl::server::http::Row {
            round,
            attempt: 1,
            metrics: [("accuracy".to_owned(), 0.5), ("loss".to_owned(), loss)].into(),
            draw: Default::default(),
            clients: 4,
            bytes_up: 12_345,
            bytes_down: 999,
            seconds: 1.25,
            committed: 0,
        };
        let client = tern_fl::ClientId([0xab; 32]);
        let page = Page {
            name: "digits".into(),
            rounds: 10,
            committed: 2,
            round: 3,
            attempt: 2,
            phase: "collect",
            online: 7,
            enrolled: 8,
            asked: 10,
            metric: "loss".into(),
            best: Some(BestScore { round: 2, score: 0.8765 }),
            arrived: 1,
            needed: 4,
            seconds_left: Some(12.3),
            cohort: vec![Member { client, arrived: true }],
            history: [row(1, 1.5), row(2, 0.8765)].map(Arc::new).into(),
            bytes_up: 12_345,
            bytes_down: 999,
            failed: vec![Failed {
                round: 3,
                attempt: 1,
                phase: "collect",
                reason: "0 answered".into(),
                missing: vec![
                    Missing { client, reason: Some("on battery".into()) },
                    Missing { client: tern_fl::ClientId([0xcd; 32]), reason: None },
                ],
            }],
            refused: [("replayed".to_owned(), 3)].into(),
            overtaken: [("late".to_owned(), 20), ("unexpected".to_owned(), 24)].into(),
            ..Page::default()
        };
        let shown = text(&page, 110, 36);
        for part in [
            "digits",
            "https://host:1",
            "2 of 10 rounds",
            "7 of 8 online, 10 are asked for",
            "0.8765 in round 2",
            "round 3 attempt 2, collect, 12 s left",
            "1 of 4 updates",
            "abababab",
            " loss ",
            " accuracy ",
            "12.3 kB",
            "999 B",
            "1.2 s",
            "replayed",
            "came too late",
            "round 3 attempt 1, collect: 0 answered",
            "abababab on battery",
            "cdcdcdcd was silent",
            "44",
        ] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
    }

    #[test]
    fn an_empty_page_and_a_tiny_terminal_are_no_trouble() {
        for size in [(110, 36), (20, 6), (1, 1)] {
            text(&Page::default(), size.0, size.1);
        }
    }
}
