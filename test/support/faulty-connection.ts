import type { Connection, Statement } from '../../dist/store/sqlite/connection.js';

/** A moment in the life of a transaction of the writer's. */
export type Point =
  /** Before the state row is read, outside of any transaction. */
  | 'state'
  | 'begin'
  /** Before a dead letter is written. */
  | 'insert'
  /** Before the watermark moves, or the answer to a change is remembered. */
  | 'remember'
  | 'commit'
  /** The commit is done, and nobody has been told. */
  | 'committed';

/** What goes wrong, at the how manieth time that a transaction comes to the point. */
export interface Fault {
  readonly point: Point;
  readonly at: number;
  /** `death` takes the connection with it; anything else is the code of an error after which it goes on. */
  readonly what: 'death' | `SQLITE_${string}`;
}

const POINTS: readonly [Point, RegExp][] = [
  ['state', /^\s*SELECT database_id/],
  ['begin', /^BEGIN IMMEDIATE$/],
  ['insert', /^INSERT INTO _sluice_dead_letters \(/],
  ['remember', /^UPDATE _sluice_state SET (applied_seq|change_id)/],
  ['commit', /^COMMIT$/],
];

const PUT = /^INSERT INTO "(\w+)" \(key, value\)/;

/** What a {@link faulty} connection is to do. */
export class Faults {
  next: Fault | undefined;
  isDead = false;
  /** Which values SQLite is to find too big, as no value is that a test has the memory for. */
  tooBig: (table: string, value: unknown) => boolean = () => false;
  /** How often a statement took its transaction with it, and how often COMMIT said no. */
  lost = 0;
  refused = 0;
  tooBigs = 0;
  #seen = 0;

  arm(fault: Fault | undefined): void {
    this.next = fault;
    this.#seen = 0;
  }

  pass(point: Point): void {
    const fault = this.next;
    if (fault === undefined || fault.point !== point || this.#seen++ < fault.at) return;
    this.next = undefined;
    this.isDead = fault.what === 'death';
    throw sqliteError(this.isDead ? 'SQLITE_IOERR' : fault.what);
  }

  assertAlive(): void {
    if (this.isDead) throw sqliteError('SQLITE_IOERR');
  }
}

export function sqliteError(code: string): Error {
  return Object.assign(new Error(code), { code });
}

/** A real connection that fails where it is told to. */
export function faulty(db: Connection, faults: Faults): Connection {
  return new Proxy(db, {
    get(target, name) {
      if (name === 'inTransaction') return !faults.isDead && target.inTransaction;
      if (name === 'prepare') {
        return (sql: string) => {
          faults.assertAlive();
          return wrap(target, target.prepare(sql), sql, faults);
        };
      }
      const value = Reflect.get(target, name, target) as unknown;
      if (typeof value !== 'function') return value;
      return (...parameters: unknown[]) => {
        faults.assertAlive();
        return Reflect.apply(value, target, parameters) as unknown;
      };
    },
  });
}

function wrap(db: Connection, statement: Statement, sql: string, faults: Faults): Statement {
  const point = POINTS.find(([, pattern]) => pattern.test(sql))?.[0];
  const table = PUT.exec(sql)?.[1];
  const wrapped: Statement = new Proxy(statement, {
    get(target, name) {
      const value = Reflect.get(target, name, target) as unknown;
      if (typeof value !== 'function') return value;
      return (...parameters: unknown[]) => {
        faults.assertAlive();
        if (point !== undefined && name === (point === 'state' ? 'get' : 'run')) faults.pass(point);
        const isTooBig = (value: unknown, i: number) => i % 2 === 1 && faults.tooBig(table as string, value);
        if (table !== undefined && name === 'run' && parameters.some(isTooBig)) {
          faults.tooBigs++;
          throw sqliteError('SQLITE_TOOBIG');
        }
        const result = observed(db, faults, point, () => Reflect.apply(value, target, parameters) as unknown);
        if (point === 'commit') faults.pass('committed');
        return result === target ? wrapped : result;
      };
    },
  });
  return wrapped;
}

function observed(db: Connection, faults: Faults, point: Point | undefined, run: () => unknown): unknown {
  const wasOpen = db.inTransaction;
  try {
    return run();
  } catch (error) {
    if (point === 'commit') faults.refused++;
    else if (wasOpen && !db.inTransaction) faults.lost++;
    throw error;
  }
}
