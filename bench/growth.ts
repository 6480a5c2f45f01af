/** Measures what a write costs as the table grows and as staging fills, and draws it. Usage: npm run bench:growth */
import { writeFileSync } from 'node:fs';
import { growthCase } from './cases/growth.ts';
import { diskText, machineText, thisMachine } from './machine.ts';
import { type Line, plot } from './plot.ts';
import { startProgress } from './progress.ts';
import { race, stepsOf } from './race.ts';

const machine = thisMachine();
console.log(`${machineText(machine)}, ${diskText([machine])}`);

const progress = startProgress(stepsOf(growthCase));
const measured = await race(growthCase, { nodeOptions: [], onStep: progress.step }).finally(progress.stop);

const lines = measured.map(({ contestant, rounds }): Line => {
  const windows = rounds.filter(({ rows }) => rows !== undefined);
  return {
    name: contestant.name,
    points: windows.map(({ rows = 0, usPerWrite = 0 }) => [rows, Number(usPerWrite.toFixed(3))]),
  };
});
const y = 'µs per write';
const svg = plot([
  {
    title: 'As the table grows: until applied',
    x: 'rows in the table',
    y,
    lines: lines.filter(({ name }) => !name.endsWith('acknowledged')),
  },
  {
    title: 'As staging fills: until acknowledged',
    x: 'writes in staging',
    y,
    lines: lines.filter(({ name }) => name.endsWith('acknowledged')),
  },
]);
const results = { date: new Date().toISOString(), ...machine, lines };
writeFileSync('bench/results/growth.json', `${JSON.stringify(results)}\n`);
writeFileSync('bench/results/growth.svg', svg);
for (const { name, points } of lines) {
  console.log(`\n${name}`);
  console.table(points.map(([rows, us]) => ({ rows, 'µs/write': us })));
}
