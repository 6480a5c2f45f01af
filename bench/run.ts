/**
 * Runs cases and prints what they have measured: those that the goals ask for, or those that are named, or with `--full` all.
 * Usage: npm run bench [-- --case NAME… --driver NAME… --rounds NUMBER --json FILE]; npm run bench:full
 */
import { Command, InvalidArgumentError } from 'commander';
import { CASES } from './cases/index.ts';
import type { Case } from './contest.ts';
import { isAskedFor } from './goals.ts';
import { diskText, machineText, thisMachine } from './machine.ts';
import { startProgress } from './progress.ts';
import { race, stepsOf } from './race.ts';
import { caseTable, goalsTable } from './report.ts';
import { append, type ResultLine } from './results.ts';

interface Options {
  readonly full?: true;
  readonly case?: readonly string[];
  readonly driver?: readonly string[];
  readonly rounds?: number;
  readonly json?: string;
  readonly nodeOption: readonly string[];
}

const program = new Command('bench')
  .description('measures Sluice and its peers, round by round, and prints which goals are met')
  .option('--full', 'everything, not only what the goals ask for')
  .option('--case <name...>', `only these cases, with all who take part (${CASES.map(({ name }) => name).join(', ')})`)
  .option('--driver <name...>', 'only those whose name begins with one of these')
  .option('--rounds <number>', 'how many rounds count (default: as many as the case needs)', atLeastOne)
  .option('--json <file>', 'append the results to this file (default: build/bench-results/DATE.jsonl, for a whole run)')
  .option('--node-option <option...>', 'for the Node.js that runs each contestant, as --node-option=--cpu-prof', []);

const options = program.parse().opts<Options>();
const { case: only, driver: drivers, rounds } = options;
const unknown = only?.find((name) => CASES.every((each) => each.name !== name));
if (unknown !== undefined) program.error(`no case ${unknown}`);

const cases = CASES.filter(({ name }) => only?.includes(name) ?? true)
  .map((each): Case => {
    const everyone = options.full !== undefined || only !== undefined || drivers !== undefined;
    const contestants = each.contestants
      .filter(({ name }) => everyone || isAskedFor(each.name, name))
      .filter(({ name }) => drivers?.some((begin) => name.startsWith(begin)) ?? true);
    return { ...each, contestants, rounds: rounds ?? each.rounds };
  })
  .filter(({ contestants }) => contestants.length > 0);
if (cases.length === 0) program.error(`nobody takes part whose name begins with ${drivers?.join(' or ')}`);

const date = new Date().toISOString();
const isWhole = only === undefined && drivers === undefined && rounds === undefined;
const file = options.json ?? (isWhole ? `build/bench-results/${date.slice(0, 10)}.jsonl` : undefined);
const machine = thisMachine();
console.log(`${machineText(machine)}, ${diskText([machine])}`);

const progress = startProgress(cases.reduce((sum, each) => sum + stepsOf(each), 0));
const lines: ResultLine[] = [];
try {
  for (const each of cases) {
    const measured = await race(each, {
      nodeOptions: options.nodeOption,
      onStep: (what) => progress.step(`${each.name}: ${what}`),
    });
    const { name, title } = each;
    const made = measured.map(({ contestant, rounds }): ResultLine => {
      const { name: who, durability } = contestant;
      return { date, ...machine, case: name, title, contestant: who, durability, rounds };
    });
    lines.push(...made);
    if (file !== undefined) append(file, made);
    console.log(
      `\n${name}: ${title}, ${each.rounds === 1 ? '1 round' : `medians of ${each.rounds} rounds`}\n\n${caseTable(made)}`,
    );
  }
} catch (error) {
  progress.stop();
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
progress.stop();
const goals = goalsTable(lines);
if (goals !== '') console.log(`\n${goals}`);
if (file !== undefined) console.log(`\nAll figures: ${file}`);

function atLeastOne(text: string): number {
  const number = Number(text);
  if (!Number.isInteger(number) || number < 1) throw new InvalidArgumentError('It must be a whole number above 0.');
  return number;
}
