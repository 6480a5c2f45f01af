import type { DatabaseStats, OpenOptions } from 'sluicedb';
import { Child, type ChildOptions } from './child.ts';
import { eventually } from './eventually.ts';

/** What a remote database has told of itself. */
export interface Seen {
  /** Class and code of each failed attempt to flush. */
  readonly failures: readonly string[];
  readonly states: readonly string[];
  readonly restarts: readonly string[];
  readonly dead: number;
  /** What ended it, in the state `failed`. */
  readonly cause: string;
}

/** A database in a process of its own, which can be starved and broken without harm to the test's. */
export class RemoteDatabase {
  readonly child: Child;
  #asked = 0;

  static async open(file: string, options: OpenOptions, setup: ChildOptions = {}): Promise<RemoteDatabase> {
    const remote = new RemoteDatabase(file, options, setup);
    await remote.child.says('ready\n');
    return remote;
  }

  private constructor(file: string, options: OpenOptions, setup: ChildOptions) {
    this.child = new Child(
      `import { createInterface } from 'node:readline';
       const db = await open(process.argv[2], JSON.parse(process.argv[3]));
       const seen = { failures: [], states: [], restarts: [], dead: 0, cause: '' };
       db.on('failure', ({ error }) => { seen.cause = error.message; });
       db.on('retry', ({ failure, error }) => seen.failures.push(failure + ' ' + error.sqliteCode));
       db.on('state', ({ state }) => seen.states.push(state));
       db.on('writer-restart', ({ reason }) => seen.restarts.push(reason));
       db.on('dead-letter', () => { seen.dead++; });
       const Run = (async () => {}).constructor;
       const kept = {};
       console.log('ready');
       let n = 0;
       for await (const line of createInterface({ input: process.stdin })) {
         let answer;
         try {
           answer = { value: await new Run('db', 'seen', 'kept', JSON.parse(line))(db, seen, kept) };
         } catch (error) {
           answer = { error: (error.code ?? error.name) + ': ' + error.message };
         }
         console.log('answer ' + ++n + ' ' + JSON.stringify(answer) + ' .');
       }`,
      [file, JSON.stringify(options)],
      setup,
    );
  }

  /** Runs the body of an async function there, with `db`, `seen` and `kept` in scope. Call after call. */
  async run<T>(body: string): Promise<T> {
    const mark = `answer ${++this.#asked} `;
    this.child.process.stdin?.write(`${JSON.stringify(body)}\n`);
    await eventually(() => {
      const { exitCode, signalCode } = this.child.process;
      if (exitCode !== null || signalCode !== null) {
        throw new Error(`the child ended (${signalCode ?? exitCode}): ${this.child.errors}`);
      }
      return this.child.output.split(mark)[1]?.includes(' .\n') === true;
    }, `the child answers: ${body}`);
    const text = this.child.output.split(mark)[1]?.split(' .\n')[0] as string;
    const { value, error } = JSON.parse(text) as { value: T; error?: string };
    if (error !== undefined) throw new Error(error);
    return value;
  }

  seen(): Promise<Seen> {
    return this.run<Seen>('return seen');
  }

  stats(): Promise<DatabaseStats> {
    return this.run<DatabaseStats>('return db.stats()');
  }

  async close(): Promise<{ pending: number }> {
    const result = await this.run<{ pending: number }>('return await db.close()');
    this.child.process.stdin?.end();
    await this.child.end();
    return result;
  }
}
