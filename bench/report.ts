/** Tables of what was measured, for people: Markdown, which a terminal shows well enough. */
import { FIGURES, type Figure } from './contest.ts';
import { type Bound, GOALS } from './goals.ts';
import { type Assessment, assess, median, type Result, type Spread } from './summary.ts';

/** The goals of which all was measured that they ask for; nothing where there is none. */
export function goalsTable(results: readonly Result[]): string {
  const assessed = GOALS.map((goal) => assess(goal, results)).filter((each) => each !== undefined);
  if (assessed.length === 0) return '';
  return table(
    ['what', 'against', 'goal', 'measured', 'met', 'safe when acknowledged (ours; theirs)'],
    assessed.map((each) => [
      each.goal.what,
      againstOf(each),
      each.goal.bound === undefined ? '' : boundText(each.goal.bound),
      spreadText(each.measured),
      each.met === undefined ? '' : each.met ? 'yes' : '**no**',
      each.durability.join('; '),
    ]),
  );
}

/** Where there are several pairs, which of them this is. */
function againstOf({ goal, pair }: Assessment): string {
  if (goal.pairs.length === 1) return goal.against;
  return `${goal.against}; least: ${pair.case}, ${pair.ours} to ${pair.theirs.join(', ')}`;
}

function boundText(bound: Bound): string {
  if ('atLeast' in bound) return `≥ ${numberText(bound.atLeast)}`;
  return 'atMost' in bound ? `≤ ${numberText(bound.atMost)}` : `< ${numberText(bound.below)}`;
}

function spreadText({ median: middle, least, most }: Spread): string {
  if (least === most) return numberText(middle);
  return `${numberText(middle)} (${numberText(least)} to ${numberText(most)})`;
}

/** The medians of one case, in the order of its contestants. */
export function caseTable(results: readonly Result[]): string {
  const measured = (Object.keys(FIGURES) as Figure[]).filter((figure) =>
    results.some(({ rounds }) => rounds.some((round) => round[figure] !== undefined)),
  );
  return table(
    ['', 'safe when acknowledged', ...measured.map((figure) => FIGURES[figure])],
    results.map(({ contestant, durability, rounds }) => [
      contestant,
      durability,
      ...measured.map((figure) => {
        const values = rounds.map((round) => round[figure]).filter((value) => value !== undefined);
        return values.length === 0 ? '' : numberText(median(values));
      }),
    ]),
  );
}

/** Three digits tell what a measurement is worth; ratios need two behind the point. */
function numberText(value: number): string {
  if (value >= 1_000) return Math.round(Number(value.toPrecision(3))).toLocaleString('en');
  return String(Number(value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)));
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((cell, i) => Math.max(3, cell.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (cells: readonly string[]) => `| ${cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' | ')} |`;
  return [line(head), `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`, ...rows.map(line)].join('\n');
}
