import type { Connection } from '../../dist/store/sqlite/connection.js';
import { Applier, type ApplierOptions } from '../../dist/store/sqlite/writer/applier.js';
import { QueueChanger } from '../../dist/store/sqlite/writer/queue-changer.js';
import { writerParts } from '../../dist/store/sqlite/writer/writer-parts.js';

/** No limits, no breaker. */
export const UNLIMITED: ApplierOptions = {
  limits: {
    maxEntries: Number.MAX_SAFE_INTEGER,
    maxBytes: Number.MAX_SAFE_INTEGER,
    maxAgeMs: undefined,
    overflow: 'block',
  },
  breaker: { maxDeadShare: 1, minWrites: 1 },
};

export function applierOn(db: Connection, owner = 'test', options: ApplierOptions = UNLIMITED): Applier {
  return new Applier(writerParts(db, owner, undefined), options);
}

/** Both that work on the writer's connection, sharing what they know, as on the writer thread. */
export function writerOn(
  db: Connection,
  owner = 'test',
  options: ApplierOptions = UNLIMITED,
): { applier: Applier; queue: QueueChanger } {
  const parts = writerParts(db, owner, undefined);
  return { applier: new Applier(parts, options), queue: new QueueChanger(parts, options.limits) };
}
