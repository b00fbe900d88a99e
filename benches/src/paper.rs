//! Results on paper: tables in Markdown, charts in SVG beside them.

use std::{fmt::Write as _, fs, io, path::Path};

use plotters::{
    coord::Shift,
    prelude::{
        DrawingArea, IntoDrawingArea, IntoFont, Palette, Palette99, Rectangle, SVGBackend, Text,
        WHITE,
    },
    style::{Color, RGBColor, TextStyle},
};
use transport_traits::BoxError;

/// Bars of one length each, in groups.
#[derive(Clone, Debug)]
pub struct Chart {
    /// File name without its ending.
    pub name: String,
    /// What the lengths are.
    pub title: String,
    /// Group, bar in it, length.
    pub bars: Vec<(String, String, f64)>,
}

/// Lines of text and tables, in the order they come.
#[derive(Debug, Default)]
pub struct Paper {
    text: String,
    charts: Vec<Chart>,
}

impl Paper {
    /// Begins a section.
    pub fn section(&mut self, title: &str) {
        let _ = writeln!(self.text, "\n## {title}\n");
    }

    /// A paragraph.
    pub fn say(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(self.text, "{}\n", text.as_ref());
    }

    /// A table; rows are as long as the head.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
        self.text += &line(&head);
        let rule = |at: usize| if at == 0 { "---" } else { "---:" }.to_owned();
        self.text += &line(&(0..head.len()).map(rule).collect::<Vec<_>>());
        rows.iter().for_each(|row| self.text += &line(row));
        self.text.push('\n');
    }

    /// A chart.
    pub fn chart(&mut self, chart: Chart) {
        let _ = writeln!(self.text, "![{}](results/{}.svg)\n", chart.title, chart.name);
        self.charts.push(chart);
    }

    /// Everything so far, in Markdown.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Writes it to `path`, charts into the folder `results` beside it.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), BoxError> {
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        fs::write(path, self.text.trim_start()).map_err(|error| at(path, &error))?;
        let folder = folder.join("results");
        fs::create_dir_all(&folder).map_err(|error| at(&folder, &error))?;
        for chart in &self.charts {
            let path = folder.join(format!("{}.svg", chart.name));
            fs::write(&path, drawn(chart)?).map_err(|error| at(&path, &error))?;
        }
        Ok(())
    }
}

fn at(path: &Path, error: &io::Error) -> BoxError {
    format!("{}: {error}", path.display()).into()
}

const WIDTH: u32 = 860;
const LEFT: i32 = 330;
const RIGHT: i32 = 90;
const BAR: i32 = 16;
const TOP: i32 = 40;
const INK: RGBColor = RGBColor(40, 40, 40);

/// A chart as SVG: a bar below the other, its length beside it.
fn drawn(chart: &Chart) -> Result<String, BoxError> {
    let groups: Vec<&str> = distinct(chart.bars.iter().map(|(group, ..)| group.as_str()));
    let kinds: Vec<&str> = distinct(chart.bars.iter().map(|(_, bar, _)| bar.as_str()));
    let rows = i32::try_from(chart.bars.len() + groups.len())?;
    let height = u32::try_from(TOP + rows * BAR + 10)?;
    let longest = chart.bars.iter().map(|(.., length)| *length).fold(0.0, f64::max);
    let scale = f64::from(i32::try_from(WIDTH)? - LEFT - RIGHT) / longest.max(f64::MIN_POSITIVE);
    let mut out = String::new();
    {
        let area = SVGBackend::with_string(&mut out, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        write_at(&area, &chart.title, (10, 10), 15)?;
        let mut y = TOP;
        for group in groups {
            for (_, bar, length) in chart.bars.iter().filter(|(of, ..)| of == group) {
                let kind = kinds.iter().position(|kind| kind == bar).unwrap_or_default();
                #[expect(clippy::cast_possible_truncation, reason = "at most the chart's width")]
                let end = LEFT + (length * scale) as i32;
                let colour = Palette99::pick(kind).filled();
                area.draw(&Rectangle::new(
                    [(LEFT, y + 2), (end.max(LEFT + 1), y + BAR - 2)],
                    colour,
                ))?;
                write_at(&area, &format!("{group}, {bar}"), (10, y + 2), 12)?;
                write_at(&area, &short(*length), (end + 6, y + 2), 12)?;
                y += BAR;
            }
            y += BAR;
        }
        area.present()?;
    }
    Ok(out)
}

fn write_at(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    text: &str,
    at: (i32, i32),
    size: i32,
) -> Result<(), BoxError> {
    let style = TextStyle::from(("sans-serif", size).into_font()).color(&INK);
    Ok(area.draw(&Text::new(text.to_owned(), at, style))?)
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    names.for_each(|name| {
        if !seen.contains(&name) {
            seen.push(name);
        }
    });
    seen
}

/// A number with three digits or so, thousands parted.
#[must_use]
pub fn short(number: f64) -> String {
    if number >= 1000.0 {
        let mut digits = format!("{number:.0}");
        let mut at = digits.len();
        while at > 3 {
            at -= 3;
            digits.insert(at, ',');
        }
        digits
    } else if number >= 100.0 {
        format!("{number:.0}")
    } else if number >= 10.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let said = [0.5, 12.34, 123.4, 1234.5, 12_345_678.0].map(short);
        assert_eq!(said, ["0.50", "12.3", "123", "1,234", "12,345,678"]);
    }

    #[test]
    fn a_paper_holds_its_tables_and_charts() {
        let mut paper = Paper::default();
        paper.section("Some");
        paper.table(&["what", "how much"], &[vec!["this".to_owned(), short(7.0)]]);
        let bars =
            vec![("g".to_owned(), "one".to_owned(), 1.0), ("g".to_owned(), "two".to_owned(), 0.0)];
        paper.chart(Chart { name: "some".to_owned(), title: "A & B".to_owned(), bars });
        let folder = tempfile::tempdir().unwrap();

        paper.write(&folder.path().join("RESULTS.md")).unwrap();

        let text = fs::read_to_string(folder.path().join("RESULTS.md")).unwrap();
        assert!(text.contains("| what | how much |\n| --- | ---: |\n| this | 7.00 |\n"), "{text}");
        assert!(text.contains("(results/some.svg)"), "{text}");
        let chart = fs::read_to_string(folder.path().join("results/some.svg")).unwrap();
        assert!(chart.contains("A &amp; B") && chart.contains("g, two"), "{chart}");
    }
}
