// Draws the Mermaid diagrams of a page with mermaid.min.js, which tests/site.sh puts beside this file. Without that
// they stay text. Nothing is loaded from another site.
(() => {
    const sources = [...document.querySelectorAll('code.language-mermaid')];
    if (sources.length === 0) {
        return;
    }
    const draw = async () => {
        const isDark = ['ayu', 'coal', 'navy'].some((theme) => document.documentElement.classList.contains(theme));
        mermaid.initialize({ startOnLoad: false, theme: isDark ? 'dark' : 'default' });
        for (const source of sources) {
            const diagram = document.createElement('pre');
            diagram.className = 'mermaid';
            diagram.textContent = source.textContent;
            source.closest('pre').replaceWith(diagram);
        }
        await mermaid.run({ querySelector: 'pre.mermaid' });
    };
    const script = document.createElement('script');
    script.src = `${path_to_root}mermaid.min.js`;
    script.onload = draw;
    document.body.append(script);
})();
