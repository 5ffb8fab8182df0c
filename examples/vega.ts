// The declarations of vega and vega-lite want the DOM's types, which no Node program has. So the two are imported by
// names that the compiler does not follow, and what is used of them is declared here.
const vegaName: string = 'vega';
const vegaLiteName: string = 'vega-lite';

interface Vega {
  parse(spec: object): object;
  readonly View: new (
    runtime: object,
    options: { renderer: 'none' },
  ) => {
    toSVG(): Promise<string>;
    finalize(): void;
  };
}

interface VegaLite {
  compile(spec: object): { readonly spec: object };
}

/** A Vega-Lite specification, drawn as an SVG document. */
export async function renderSvg(spec: object): Promise<string> {
  const { parse, View } = (await import(vegaName)) as Vega;
  const { compile } = (await import(vegaLiteName)) as VegaLite;
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}
