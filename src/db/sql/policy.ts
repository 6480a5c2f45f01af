import { OptionReader } from '../../base/options.ts';

/** What the clauses of `aquery` and its like may say. On `open` for all calls, and with each call. */
export interface SqlPolicyOptions {
  /**
   * Whether a clause is an expression and nothing more: no subquery, no table but the one that is asked, and only functions that are
   * allowed. With `false`, subqueries and all functions but the forbidden ones can be used; a clause still cannot end the
   * statement, begin another one, or hide a part of itself in a comment.
   * @defaultValue true
   */
  readonly strict?: boolean | undefined;
  /**
   * Functions that may be called besides those that are allowed already: by themselves, those of SQLite that only compute
   * something. Their case does not matter.
   * @defaultValue none
   */
  readonly allowedFunctions?: readonly string[] | undefined;
  /**
   * Functions that may not be called, whatever else is said; `['*']` for all. With a call, it takes the place of what `open` has.
   * `LIKE`, `GLOB`, `REGEXP` and `MATCH` call the functions of these names.
   * @defaultValue none
   */
  readonly forbiddenFunctions?: readonly string[] | undefined;
  /** Allow the `allowedFunctions` alone. @defaultValue false */
  readonly overrideAllowed?: boolean | undefined;
  /** The longest clause there may be, in characters. Integer, 1 to 1,000,000. @defaultValue 1000 */
  readonly maxClauseLength?: number | undefined;
  /**
   * How deeply a clause may be nested: brackets, and operators that stand before something (`NOT`, `-`, `+`, `~`), one in another.
   * What SQLite takes for a clause grows with the square of it. Integer, 1 to 1,000, which is SQLite's own limit.
   * @defaultValue 100
   */
  readonly maxClauseDepth?: number | undefined;
}

/** The same with everything filled in; functions in lower case. */
export interface SqlPolicy {
  readonly strict: boolean;
  readonly allowed: ReadonlySet<string>;
  readonly forbidden: ReadonlySet<string>;
  readonly maxClauseLength: number;
  readonly maxClauseDepth: number;
}

/** Those of SQLite that compute something of what they are given, and do nothing else. */
const PURE_FUNCTIONS = `
  abs acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow power radians
  round sign sin sinh sqrt tan tanh trunc
  char concat concat_ws format glob hex instr length like lower ltrim octet_length printf quote replace rtrim soundex substr
  substring trim unhex unicode upper
  coalesce if ifnull iif likelihood likely max min nullif typeof unlikely
  date datetime julianday strftime time timediff unixepoch
  avg count group_concat median percentile percentile_cont percentile_disc string_agg sum total
  cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
  json json_array json_array_insert json_array_length json_error_position json_extract json_group_array json_group_object json_insert
  json_object json_patch json_pretty json_quote json_remove json_replace json_set json_type json_valid
  jsonb jsonb_array jsonb_array_insert jsonb_extract jsonb_group_array jsonb_group_object jsonb_insert jsonb_object jsonb_patch
  jsonb_remove jsonb_replace jsonb_set`;

export const DEFAULT_POLICY: SqlPolicy = {
  strict: true,
  allowed: new Set(PURE_FUNCTIONS.trim().split(/\s+/)),
  forbidden: new Set(),
  maxClauseLength: 1_000,
  maxClauseDepth: 100,
};

export const POLICY_OPTIONS: readonly (keyof SqlPolicyOptions)[] = [
  'strict',
  'allowedFunctions',
  'forbiddenFunctions',
  'overrideAllowed',
  'maxClauseLength',
  'maxClauseDepth',
];

/** Reads what there is of a policy, and takes the rest from another one. Whoever reads more finishes the reader. */
export function readSqlPolicy(options: OptionReader, inherited: SqlPolicy = DEFAULT_POLICY): SqlPolicy {
  const given = readNames(options, 'allowedFunctions') ?? [];
  const forbidden = readNames(options, 'forbiddenFunctions');
  const base = options.boolean('overrideAllowed', false) ? [] : inherited.allowed;
  return {
    strict: options.boolean('strict', inherited.strict),
    allowed: new Set([...base, ...given]),
    forbidden: forbidden === undefined ? inherited.forbidden : new Set(forbidden),
    maxClauseLength: options.integer('maxClauseLength', {
      min: 1,
      max: 1_000_000,
      fallback: inherited.maxClauseLength,
    }),
    maxClauseDepth: options.integer('maxClauseDepth', { min: 1, max: 1_000, fallback: inherited.maxClauseDepth }),
  };
}

/** The policy of one call. */
export function policyOf(given: SqlPolicyOptions, inherited: SqlPolicy, call: string): SqlPolicy {
  const own = Object.fromEntries(
    POLICY_OPTIONS.flatMap((name) => (given[name] === undefined ? [] : [[name, given[name]]])),
  );
  if (Object.keys(own).length === 0) return inherited;
  const options = new OptionReader(own);
  const policy = readSqlPolicy(options, inherited);
  options.finish(call);
  return policy;
}

function readNames(options: OptionReader, name: string): string[] | undefined {
  const given = options.any(name);
  if (given === undefined) return undefined;
  if (Array.isArray(given) && given.every((each) => typeof each === 'string' && each !== '')) {
    return given.map((each: string) => each.toLowerCase());
  }
  options.refuse(name, 'must be a list of the names of functions');
  return undefined;
}
