import { readdirSync, readFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Child } from '../support/child.ts';
import { tempDir } from '../support/temp-dir.ts';

const NICENESS = 10;
const LOWEST = 19;

const HOST = `
  const db = await open(process.argv[2]);
  db.set('a', 1);
  await db.aflush();
  console.log('flushed');
  setInterval(() => {}, 1000);`;

/** How nice each thread of a process is: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html */
function nicenesses(pid: number): number[] {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).map((task) => {
    const behindTheName = readFileSync(join(tasks, task, 'stat'), 'utf8')
      .split(') ')
      .at(-1) as string;
    return Number(behindTheName.split(' ')[16]);
  });
}

test.runIf(process.platform === 'linux').for([{ more: 0 }, { more: 15 }])(
  'the writer thread, and no other, leaves the core to a host that is $more nicer than usual',
  async ({ more }, context) => {
    const own = getPriority() + more;
    if (own >= LOWEST) context.skip(`these tests run at ${getPriority()} themselves`);
    const host = new Child(`(await import('node:os')).setPriority(${own});${HOST}`, [join(tempDir(), 'a.db')]);
    await host.says('flushed', 20_000);
    const each = nicenesses(host.process.pid as number);
    host.process.kill('SIGKILL');
    await host.end();
    const lower = Math.min(own + NICENESS, LOWEST);
    expect(each.filter((niceness) => niceness === lower)).toHaveLength(1);
    expect(each.filter((niceness) => niceness > own)).toHaveLength(1);
  },
);
