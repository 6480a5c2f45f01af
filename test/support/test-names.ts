import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';

const ROOT = join(import.meta.dirname, '..', '..');

const ENTRIES: readonly string[] = ['describe', 'test', 'it'];

/**
 * The names of all tests as they stand in the files: `integration/table.test.ts › group › name`. The name of a `test.each` is its
 * template; of one with `${…}` it is the text between the quotes. `const onBoth = test.each(…)` is a test, too.
 */
export function testNames(): Set<string> {
  const files = readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.test.ts'),
  );
  const names = new Set<string>();
  for (const file of files) {
    const text = readFileSync(join(ROOT, 'test', file), 'utf8');
    const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
    const entries = new Map(ENTRIES.map((name) => [name, name]));
    const visit = (node: ts.Node, path: readonly string[]): void => {
      if (ts.isVariableDeclaration(node) && ts.isIdentifier(node.name) && node.initializer !== undefined) {
        const kind = entries.get(rootOf(node.initializer));
        if (kind !== undefined) entries.set(node.name.text, kind);
      }
      const found = ts.isCallExpression(node) ? entryOf(node, entries) : undefined;
      if (found === undefined) return ts.forEachChild(node, (child) => visit(child, path));
      const inner = [...path, found.name];
      if (found.kind !== 'describe') names.add(inner.join(' › '));
      for (const argument of found.rest) visit(argument, inner);
    };
    visit(source, [file.replaceAll('\\', '/')]);
  }
  return names;
}

/** Of these there are no names: they show nothing. */
const NOT_RUN = /^\w+\.(skip|todo|fails)\b/;

interface Entry {
  readonly kind: string;
  readonly name: string;
  readonly rest: readonly ts.Node[];
}

/** `test('…', …)`, `test.runIf(…)('…', …)`, `describe.each(…)('…', …)` and the like. */
function entryOf(call: ts.CallExpression, entries: ReadonlyMap<string, string>): Entry | undefined {
  const kind = entries.get(rootOf(call.expression));
  const [first, ...rest] = call.arguments;
  if (kind === undefined || first === undefined || NOT_RUN.test(call.expression.getText())) return undefined;
  if (ts.isStringLiteralLike(first)) return { kind, name: first.text, rest };
  if (ts.isTemplateExpression(first)) return { kind, name: first.getText().slice(1, -1), rest };
  return undefined;
}

/** What stands at the beginning of `a.b(…)(…)`. */
function rootOf(expression: ts.Expression): string {
  let root = expression;
  while (ts.isCallExpression(root) || ts.isPropertyAccessExpression(root)) root = root.expression;
  return ts.isIdentifier(root) ? root.text : '';
}
