import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Case } from '../contest.ts';
import { countIn } from '../drivers/raw-sqlite.ts';
import { latencies, perSecondSince } from '../host.ts';
import { threeColumns } from '../workload.ts';
import { timed } from './producing.ts';

const ROWS = 500_000;
const ROWS_PER_REQUEST = 1_000;
const CONNECTIONS = 4;

const { rowOf } = threeColumns(ROWS);

/** Starts `sluice serve` as an operator would, and waits until it says where it listens. */
async function serve(file: string) {
  const main = fileURLToPath(new URL('cli/main.js', import.meta.resolve('sluicedb')));
  const child = spawn(process.execPath, [main, 'serve', file, '--port', '0', '--no-source'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  const exited = once(child, 'exit');
  let said = '';
  for await (const text of child.stdout.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
    said += text;
    if (said.includes('Stop with')) break;
  }
  child.stdout.resume();
  const url = /listening on (\S+)/.exec(said)?.[1];
  if (url === undefined) throw new Error(`the collector did not start: ${said}`);
  return {
    url,
    async stop() {
      child.kill('SIGTERM');
      const [code] = await exited;
      process.off('exit', kill);
      if (code !== 0) throw new Error(`the collector ended with ${code}`);
    },
  };
}

/** Sends a request over one of the kept connections, and returns the body of a good answer. */
function ask(agent: Agent, url: string, ndjson?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const method = ndjson === undefined ? 'GET' : 'POST';
    const headers = ndjson === undefined ? {} : { 'Content-Type': 'application/x-ndjson' };
    const asked = request(url, { agent, method, headers }, async (response) => {
      try {
        let body = '';
        for await (const text of response.setEncoding('utf8')) body += text;
        if (response.statusCode !== 200) throw new Error(`${response.statusCode}: ${body}`);
        resolve(body);
      } catch (error) {
        reject(error);
      }
    });
    asked.on('error', reject).end(ndjson);
  });
}

/** Batches of rows, from a few connections: until they are acknowledged, and until `/metrics` says that all are applied. */
export const collectorCase: Case = {
  name: 'collector',
  title: '500,000 rows of three columns over HTTP, 1,000 a request, from 4 connections',
  rounds: 3,
  contestants: [
    {
      name: 'sluice serve',
      durability: 'on disk',
      async start() {
        const bodies = Array.from({ length: ROWS / ROWS_PER_REQUEST }, (_, n) =>
          Array.from({ length: ROWS_PER_REQUEST }, (_, i) => JSON.stringify(rowOf(n * ROWS_PER_REQUEST + i))).join(
            '\n',
          ),
        );
        return async (scratch) => {
          const file = join(scratch, 'served.db');
          const { url, stop } = await serve(file);
          const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
          const us = new Float64Array(bodies.length);
          const start = performance.now();
          await timed(us, CONNECTIONS, (i) => ask(agent, `${url}/write/readings`, bodies[i]));
          const acknowledgedPerSecond = perSecondSince(start, ROWS);
          while (appliedIn(await ask(agent, `${url}/metrics`)) < ROWS) await sleep(5);
          const appliedPerSecond = perSecondSince(start, ROWS);
          agent.destroy();
          await stop();
          const count = countIn(file, 'readings');
          if (count !== ROWS) throw new Error(`${count} of ${ROWS} rows are there`);
          return { writes: ROWS, acknowledgedPerSecond, appliedPerSecond, ...latencies(us) };
        };
      },
    },
  ],
};

function appliedIn(metrics: string): number {
  const samples = [...metrics.matchAll(/^sluice_writes_applied_total(?:\{.*\})? (\S+)/gm)];
  return samples.reduce((sum, [, value]) => sum + Number(value), 0);
}
