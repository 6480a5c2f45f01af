import type { ServerResponse } from 'node:http';
import { checkKey } from '../db/keys.ts';
import { Refusal, send } from './answer.ts';
import { PairTable, type Tables } from './tables.ts';

/** `GET /kv/:table/:key`: the newest value, staged or applied. JSON, or the bytes of a BLOB. */
export async function readPair(
  response: ServerResponse,
  tables: Tables,
  name: string,
  key: string,
  timeoutMs: number,
): Promise<void> {
  checkKey(key);
  const table = await tables.find(name, timeoutMs);
  const value = table instanceof PairTable ? await table.get(key, timeoutMs) : undefined;
  if (value === undefined) throw new Refusal(404, 'SLUICE_NOT_FOUND', 'there is no such key in a table of this name');
  if (value instanceof Uint8Array) return send(response, 200, value, { 'content-type': 'application/octet-stream' });
  send(
    response,
    200,
    JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? String(part) : part)),
  );
}
