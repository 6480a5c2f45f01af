import { codeOf, messageOf, SluiceError } from '../base/errors.ts';

/** The address of a collector, without a slash at its end. */
export function checkUrl(url: string): string {
  if (/^https?:\/\//i.test(url) && URL.canParse(url)) return url.replace(/\/+$/, '');
  throw new SluiceError('SLUICE_INVALID_OPTION', `--url must be an address as http://127.0.0.1:9464, not '${url}'`);
}

/** The token that collectors are sent: an empty variable is how a shell unsets one. */
export function tokenHeaders(): Readonly<Record<string, string>> {
  const token = process.env['SLUICE_TOKEN'] || undefined;
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}

/** Why `fetch` failed, in one word or sentence. */
export function reasonOf(cause: unknown): string {
  // fetch puts what happened into the cause of a message that says nothing.
  const inner = cause instanceof TypeError && cause.cause !== undefined ? cause.cause : cause;
  return codeOf(inner) ?? messageOf(inner);
}

/** The error where nobody listens at an address; `undefined` where somebody may have got the request. */
export function nobodyThere(url: string, cause: unknown): SluiceError | undefined {
  const reason = reasonOf(cause);
  if (reason !== 'ECONNREFUSED' && reason !== 'ENOTFOUND') return undefined;
  return new SluiceError('SLUICE_NOT_FOUND', `there is nobody at ${url} (${reason}): is the collector running?`, {
    cause,
  });
}
