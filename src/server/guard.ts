import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { BlockList, isIP } from 'node:net';
import { Refusal } from './answer.ts';

/** Shorter tokens can be guessed. */
export const TOKEN_LENGTH_MIN = 16;

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

/** Whether only this machine can reach what listens on `host`. */
export function isLoopback(host: string): boolean {
  const family = isIP(host);
  if (family === 0) return host.toLowerCase() === 'localhost';
  return LOOPBACK.check(host, family === 6 ? 'ipv6' : 'ipv4');
}

/** What the guard has to know. */
export interface GuardOptions {
  /** The address that is listened on. */
  readonly address: string;
  readonly port: number;
  readonly token: string | undefined;
  readonly allowedHosts: readonly string[];
}

/**
 * Decides who may come in, before anything else is looked at:
 *
 * - the Host header must name this server, so that a page of a name that was made to point here gets nothing;
 * - a request that a browser makes for a page of another origin is refused, whatever it is for;
 * - with a token, everything but `/healthz` needs it.
 */
export class Guard {
  readonly #hosts: ReadonlySet<string> | undefined;
  readonly #token: Buffer | undefined;

  constructor({ address, port, token, allowedHosts }: GuardOptions) {
    this.#hosts = hostsOf(address, port, allowedHosts);
    this.#token = token === undefined ? undefined : digest(token);
  }

  /** Throws a {@link Refusal} for whoever has to stay outside. */
  check(request: IncomingMessage, path: string): void {
    const host = request.headers.host?.toLowerCase() ?? '';
    this.#checkHost(host);
    checkOrigin(request, host);
    if (this.#token !== undefined && path !== '/healthz') checkToken(request, this.#token);
  }

  #checkHost(host: string): void {
    if (this.#hosts === undefined || this.#hosts.has(host)) return;
    throw new Refusal(
      403,
      'HTTP_FORBIDDEN',
      'the Host header does not name this server: add the name to allowedHosts (--allow-host) if it is one of its own',
    );
  }
}

/** The values of Host that mean this server; `undefined` where nobody can know. */
function hostsOf(address: string, port: number, allowed: readonly string[]): ReadonlySet<string> | undefined {
  const loopback = isLoopback(address);
  // Behind another address there may be any name; the token keeps strangers out.
  if (!loopback && allowed.length === 0) return undefined;
  const own = address.includes(':') ? `[${address}]` : address;
  const names = [own, 'localhost', '127.0.0.1', '[::1]'].map((name) => name.toLowerCase());
  const hosts = new Set<string>();
  for (const name of names) {
    hosts.add(`${name}:${port}`);
    if (port === 80) hosts.add(name);
  }
  for (const entry of allowed) {
    const name = entry.toLowerCase();
    hosts.add(name);
    if (!/:\d+$/.test(name)) hosts.add(`${name}:${port}`);
  }
  return hosts;
}

function checkOrigin(request: IncomingMessage, host: string): void {
  const { origin } = request.headers;
  // Without an Origin, as an <img> asks, browsers still say where a request comes from.
  const site = request.headers['sec-fetch-site'];
  const own = origin === undefined || [`http://${host}`, `https://${host}`].includes(origin.toLowerCase());
  if (own && (site === undefined || site === 'same-origin' || site === 'none')) return;
  throw new Refusal(403, 'HTTP_FORBIDDEN', 'pages of other origins may neither read nor write here');
}

function checkToken(request: IncomingMessage, expected: Buffer): void {
  const given = /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? '')?.[1];
  // Digests have one length, whatever was sent.
  if (given !== undefined && timingSafeEqual(digest(given), expected)) return;
  throw new Refusal(401, 'HTTP_UNAUTHORIZED', 'send the token of this server: Authorization: Bearer …', {
    'www-authenticate': 'Bearer',
  });
}

function digest(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}
