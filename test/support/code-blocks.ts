import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT: string = fileURLToPath(new URL('../..', import.meta.url));

/** A fenced block of a page. */
export interface CodeBlock {
  readonly page: string;
  /** Of its first line of code. */
  readonly line: number;
  /** The word behind the fence, or `text`. */
  readonly language: string;
  /** The words after it: `untyped` for JavaScript that the type checker cannot follow. */
  readonly flags: readonly string[];
  readonly code: string;
}

/** The pages whose blocks are run. */
export const PAGES: readonly string[] = [
  ...readdirSync(ROOT).filter((name) => name.endsWith('.md')),
  ...['docs', 'monitoring', 'examples', 'bench'].flatMap((folder) =>
    readdirSync(join(ROOT, folder))
      .filter((name) => name.endsWith('.md'))
      .map((name) => `${folder}/${name}`),
  ),
].sort();

/** All fenced blocks of a page, in a list item too. */
export function blocksIn(page: string): CodeBlock[] {
  const lines = readFileSync(join(ROOT, page), 'utf8').split('\n');
  const blocks: CodeBlock[] = [];
  for (let i = 0; i < lines.length; i++) {
    const [, indent, info = ''] = /^( *)(?:```|~~~)(.*)$/.exec(lines[i] ?? '') ?? [];
    if (indent === undefined) continue;
    const end = lines.findIndex((line, at) => at > i && /^ *(```|~~~)$/.test(line));
    if (end < 0) throw new Error(`${page}:${i + 1}: a block that does not end`);
    const code = lines.slice(i + 1, end).map((line) => line.replace(new RegExp(`^ {0,${indent.length}}`), ''));
    const [language = '', ...flags] = info.trim().split(/\s+/);
    blocks.push({ page, line: i + 2, language: language || 'text', flags, code: `${code.join('\n')}\n` });
    i = end;
  }
  return blocks;
}

/** All ```ts examples in the doc comments of src/. */
export function docComments(): CodeBlock[] {
  const files = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.ts'),
  );
  return files.flatMap((file) => {
    const source = readFileSync(join(ROOT, 'src', file), 'utf8');
    return [...source.matchAll(/^[ \t]*\* ```ts\n([\s\S]*?)^[ \t]*\* ```$/gm)].map(({ index, 1: block = '' }) => ({
      page: `src/${file.replaceAll('\\', '/')}`,
      line: source.slice(0, index).split('\n').length + 1,
      language: 'ts',
      flags: [],
      code: block.replaceAll(/^[ \t]*\* ?/gm, ''),
    }));
  });
}

export const nameOf = ({ page, line }: CodeBlock): string => `${page}:${line}`;

/**
 * What is wrong with the output of a program, if anything. A comment behind a `console.log(…);` is what it prints; `…` in it
 * stands for anything, and how a value is broken into lines does not matter. Where each of them has its comment, the program
 * prints nothing else.
 */
export function outputProblem(code: string, stdout: string): string | undefined {
  const expected = [...code.matchAll(/console\.log\(.*\);? \/\/ (.*)$/gm)].map(([, text = '']) => text);
  if (expected.length === 0) return undefined;
  const all = expected.length === code.split('console.log(').length - 1;
  const parts = expected.map((text) => squeeze(text).split('…').map(escaped).join('.*?'));
  const pattern = new RegExp(all ? `^${parts.join(' ')}$` : parts.map((part) => `(?:^|.* )${part}(?= |$)`).join(''));
  const printed = squeeze(stdout);
  return pattern.test(printed) ? undefined : `it should print\n  ${expected.join('\n  ')}\nand prints\n${stdout}`;
}

const squeeze = (text: string): string => text.replaceAll(/\s+/g, ' ').trim();
const escaped = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
