//! The table of past runs.

use jiff::Timestamp;

use super::human::Look;
use super::line::{Line, Role};
use super::plain::Cleaner;
use crate::model::{RunId, RunStatus};
use crate::secret::Redactor;

/// What the table says of a run.
#[derive(Debug, Clone)]
pub struct HistoryRow<'a> {
    /// Which.
    pub run: &'a RunId,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended, if it did.
    pub ended: Option<Timestamp>,
    /// How it stands, in a word or two.
    pub status: &'a str,
    /// How it ended, if it did.
    pub role: Option<RunStatus>,
    /// How many hosts it has.
    pub hosts: Option<usize>,
    /// The playbook's name, or why nothing more is known.
    pub about: String,
}

/// The table, on a terminal with its heading. The run's id comes first on each line; only the last column is cut where the terminal ends.
#[must_use]
pub fn history_table(redactor: &Redactor, rows: &[HistoryRow<'_>], look: Look) -> Vec<String> {
    let cleaner = Cleaner::new(redactor);
    let run = rows.iter().map(|row| row.run.as_str().len()).max().unwrap_or_default();
    let status = rows.iter().map(|row| row.status.len()).chain(["STATUS".len()]).max().unwrap_or_default();
    let heading = format!(
        "{:<run$}  {:<12}  {:>6}  {:<status$}  {:>5}  PLAYBOOK",
        "RUN", "BEGAN (UTC)", "TOOK", "STATUS", "HOSTS"
    );
    // For scripts each line is a run.
    let mut lines = if look.width.is_some() { vec![Line::new().push(Role::Faint, heading)] } else { Vec::new() };
    for row in rows {
        let began = row.started.map(|at| at.strftime("%b %d %H:%M").to_string()).unwrap_or_default();
        let took = row.started.zip(row.ended).map(|(from, to)| super::live::elapsed(super::live::since(from, to)));
        let hosts = row.hosts.map(|hosts| hosts.to_string()).unwrap_or_default();
        let line = Line::new()
            .push(Role::Strong, format!("{:<run$}", row.run.as_str()))
            .text(format!("  {began:<12}  {:>6}  ", took.unwrap_or_default()))
            .push(row.role.map_or(Role::Bad, Role::from), format!("{:<status$}", row.status))
            .text(format!("  {hosts:>5}  {}", cleaner.field(&row.about)));
        lines.push(line);
    }
    let most = look.width.unwrap_or(usize::MAX);
    lines.into_iter().flat_map(|line| look.lines(line.cut(most))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_stand_in_columns_and_end_where_the_terminal_does() {
        let at = |second: i64| Some(Timestamp::from_second(1_767_323_045 + second).unwrap());
        let ids: Vec<RunId> = ["20260103-020000-0a0b0c", "20260102-030405-a1b2c3", "20260101-000000-ffffff"]
            .iter()
            .map(|id| id.parse().unwrap())
            .collect();
        let row = |run, ended, status, role, about: &str| HistoryRow {
            run,
            started: at(0),
            ended,
            status,
            role,
            hosts: Some(12),
            about: about.to_owned(),
        };
        let rows = [
            row(&ids[0], None, "cut off", None, "Rotate the Infisical token on the Docker-publish runners"),
            row(&ids[1], at(185), "rolled-back", Some(RunStatus::RolledBack), "Rotate\u{1b}[2J the token"),
            HistoryRow { started: None, hosts: None, ..row(&ids[2], None, "unreadable", None, "line 3 is damaged") },
        ];
        let table = |look| history_table(&Redactor::new(), &rows, look).join("\n");
        let narrow = table(Look { colour: false, width: Some(80) });
        let colour = table(Look { colour: true, width: None }).replace('\u{1b}', "\\e");
        insta::assert_snapshot!(format!("{}\n\n{narrow}\n\n{colour}", table(Look::default())));
    }
}
