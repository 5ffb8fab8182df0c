interface Vega {
  readonly parse: (spec: object) => object;
  readonly View: new (
    runtime: object,
    options: { renderer: 'none' },
  ) => {
    toSVG(): Promise<string>;
    finalize(): void;
  };
}

interface VegaLite {
  readonly compile: (spec: object) => { readonly spec: object };
}

/** A Vega-Lite specification, drawn as an SVG document. */
export async function renderSvg(spec: object): Promise<string> {
  // The packages' own declarations want the DOM's types, which a program for Node does not have. As plain strings the
  // compiler does not follow their names, and what is used of them is declared above.
  const { parse, View } = (await import('vega' as string)) as Vega;
  const { compile } = (await import('vega-lite' as string)) as VegaLite;
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}
