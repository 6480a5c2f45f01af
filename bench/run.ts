import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { CASES } from './cases/index.ts';
import type { Case, Contestant, Figures } from './contest.ts';

const wanted = process.argv[2]?.split(',') ?? CASES.map(({ name }) => name);
const who = process.argv[3]?.split(',');
const forced = Number(process.argv[4] ?? 0);
const median = (v: readonly number[]) => [...v].sort((a, b) => a - b)[Math.floor(v.length / 2)] as number;

async function start(each: Case, contestant: Contestant): Promise<ChildProcess> {
  const child = fork(new URL('./child.js', import.meta.url), [each.name, contestant.name], {
    execArgv: ['--expose-gc', ...(process.env['BENCH_ARGS']?.split(' ') ?? [])],
  });
  await Promise.race([
    once(child, 'message'),
    once(child, 'exit').then(() => {
      throw new Error(`${contestant.name} ended`);
    }),
  ]);
  return child;
}
for (const name of wanted) {
  const each = CASES.find((c) => c.name === name) as Case;
  const contestants = each.contestants.filter((c) => who === undefined || who.some((w) => c.name.startsWith(w)));
  const children = [];
  for (const c of contestants) children.push(await start(each, c));
  const rounds = forced || (each.rounds ?? 5);
  const results: Figures[][] = contestants.map(() => []);
  for (let r = each.cold ? 1 : 0; r <= rounds; r++) {
    for (const [i, child] of children.entries()) {
      child.send('round');
      const [figures] = await Promise.race([
        once(child, 'message'),
        once(child, 'exit').then(() => {
          throw new Error(`${contestants[i]?.name} died`);
        }),
      ]);
      if (r > 0) results[i]?.push(figures as Figures);
    }
  }
  for (const child of children) child.disconnect();
  console.log(`\n${each.title}, ${rounds} rounds`);
  console.table(
    Object.fromEntries(
      contestants.map((c, i) => [
        c.name,
        Object.fromEntries(
          Object.keys(results[i]?.[0] ?? {}).map((k) => [
            k,
            Number(median((results[i] ?? []).map((f) => f[k] as number)).toPrecision(4)),
          ]),
        ),
      ]),
    ),
  );
}
