"""LIDO, OAI-PMH and Europeana, in the shapes that they are published in."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from musicon.datasets.addresses import FetchError
from musicon.datasets.fetching import Fetcher, Manners
from musicon.datasets.services import europeana, lido, oai_pmh
from musicon.datasets.services.museum import MuseumObject, Picture

LIDO_10 = """<lido:lido xmlns:lido="http://www.lido-schema.org">
 <lido:lidoRecID lido:type="local">UEDIN:214</lido:lidoRecID>
 <lido:descriptiveMetadata xml:lang="en">
  <lido:objectClassificationWrap><lido:objectWorkTypeWrap><lido:objectWorkType>
   <lido:conceptID lido:type="URI" lido:source="MIMO">
    http://www.mimo-db.eu/InstrumentsKeywords/3573</lido:conceptID>
   <lido:term>Violin</lido:term></lido:objectWorkType></lido:objectWorkTypeWrap>
   <lido:classificationWrap><lido:classification lido:type="Hornbostel and Sachs">
   <lido:term>321.322-71</lido:term></lido:classification></lido:classificationWrap>
  </lido:objectClassificationWrap>
  <lido:objectIdentificationWrap><lido:titleWrap><lido:titleSet>
    <lido:appellationValue>Kit,
      or pochette</lido:appellationValue></lido:titleSet></lido:titleWrap>
   <lido:repositoryWrap><lido:repositorySet lido:type="current"><lido:repositoryName>
    <lido:legalBodyName><lido:appellationValue>University of Edinburgh</lido:appellationValue>
    </lido:legalBodyName></lido:repositoryName><lido:workID>214</lido:workID></lido:repositorySet>
   </lido:repositoryWrap></lido:objectIdentificationWrap>
  <lido:eventWrap><lido:eventSet><lido:event>
   <lido:eventType><lido:term>Production</lido:term></lido:eventType>
   <lido:eventActor><lido:actorInRole><lido:actor><lido:nameActorSet>
    <lido:appellationValue>Anonymous</lido:appellationValue></lido:nameActorSet></lido:actor>
   </lido:actorInRole></lido:eventActor>
   <lido:eventDate><lido:displayDate>circa 1700</lido:displayDate></lido:eventDate>
  </lido:event></lido:eventSet></lido:eventWrap></lido:descriptiveMetadata>
 <lido:administrativeMetadata xml:lang="en">
  <lido:recordWrap><lido:recordInfoSet>
   <lido:recordInfoLink>https://museum.example/214</lido:recordInfoLink>
  </lido:recordInfoSet></lido:recordWrap>
  <lido:resourceWrap>
   <lido:resourceSet>
    <lido:resourceRepresentation lido:type="image_thumb"><lido:linkResource
      lido:formatResource="image/jpeg">{url}/214t.jpg</lido:linkResource>
     </lido:resourceRepresentation>
    <lido:resourceRepresentation lido:type="image_master"><lido:linkResource
      lido:formatResource="image/jpeg">{url}/214c.jpg</lido:linkResource>
     </lido:resourceRepresentation>
    <lido:rightsResource><lido:rightsType><lido:term>CC BY-NC-SA 4.0</lido:term></lido:rightsType>
     <lido:rightsHolder><lido:legalBodyName>
      <lido:appellationValue>University of Edinburgh</lido:appellationValue>
     </lido:legalBodyName></lido:rightsHolder><lido:creditLine>Photo: A. Myers</lido:creditLine>
    </lido:rightsResource></lido:resourceSet>
   <lido:resourceSet><lido:resourceRepresentation><lido:linkResource>{url}/214s.mp3</lido:linkResource>
    </lido:resourceRepresentation><lido:resourceType><lido:term>SOUND</lido:term></lido:resourceType>
   </lido:resourceSet></lido:resourceWrap></lido:administrativeMetadata></lido:lido>"""

LIDO_11 = """<lido:lido xmlns:lido="http://www.lido-schema.org"
  xmlns:skos="http://www.w3.org/2004/02/skos/core#"
  xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 <lido:lidoRecID>DE-1/7</lido:lidoRecID>
 <lido:descriptiveMetadata xml:lang="de"><lido:objectClassificationWrap><lido:objectWorkTypeWrap>
  <lido:objectWorkType><skos:Concept rdf:about="http://www.mimo-db.eu/InstrumentsKeywords/3285">
   <skos:prefLabel xml:lang="de">Harfe</skos:prefLabel></skos:Concept></lido:objectWorkType>
  </lido:objectWorkTypeWrap></lido:objectClassificationWrap></lido:descriptiveMetadata>
 <lido:administrativeMetadata xml:lang="de"><lido:resourceWrap><lido:resourceSet>
  <lido:resourceRepresentation lido:type="http://terminology.lido-schema.org/lido00451">
   <lido:linkResource lido:formatResource="jpg">https://a.example/small</lido:linkResource>
  </lido:resourceRepresentation>
  <lido:resourceRepresentation lido:type="http://terminology.lido-schema.org/lido00464">
   <lido:linkResource lido:formatResource="jpg">https://a.example/large</lido:linkResource>
  </lido:resourceRepresentation>
  <lido:rightsResource><lido:rightsType>
   <skos:Concept rdf:about="https://creativecommons.org/publicdomain/mark/1.0/"/></lido:rightsType>
  </lido:rightsResource></lido:resourceSet></lido:resourceWrap></lido:administrativeMetadata>
</lido:lido>"""


def test_lido_1_0() -> None:
    found = lido.parse(ElementTree.fromstring(LIDO_10.format(url="https://m.example")))
    assert found == MuseumObject(
        "UEDIN:214", ("3573",), ("Violin", "321.322-71"),
        (Picture("https://m.example/214c.jpg",
                 "CC BY-NC-SA 4.0; University of Edinburgh; Photo: A. Myers"),),
        {"title": "Kit, or pochette", "institution": "University of Edinburgh",
         "inventory": "214", "maker": "Anonymous", "date": "circa 1700"},
        "https://museum.example/214")
    assert MuseumObject.from_json(found.to_json()) == found


def test_lido_1_1_with_concepts() -> None:
    found = lido.parse(ElementTree.fromstring(LIDO_11))
    assert found.keywords == ("3285",) and found.terms == ("Harfe",)
    assert found.pictures == (Picture("https://a.example/large",
                                      "https://creativecommons.org/publicdomain/mark/1.0/"),)


def test_a_bare_record() -> None:
    found = lido.parse(ElementTree.fromstring(
        '<lido:lido xmlns:lido="http://www.lido-schema.org"/>'), "oai:x:1")
    assert found == MuseumObject("oai:x:1", attributes={})


class Repository:
    """An OAI-PMH repository of numbered records, two a page; tokens can be forgotten."""

    def __init__(self, website: Any) -> None:
        self.answer = type(website.file and website.pages.setdefault("/_", _answer(website)))
        self.changed = {f"oai:m:{n}": "2026-01-01T00:00:00Z" for n in range(5)}
        self.deleted: set[str] = set()
        self.now = "2026-01-02T00:00:00Z"
        self.valid_tokens = True
        website.pages["/oai"] = self.page
        self.address = f"{website.url}/oai"

    def page(self, asked: Any) -> Any:
        query = asked.query
        if query["verb"] == "Identify":
            return self.xml("<Identify><granularity>YYYY-MM-DDThh:mm:ssZ</granularity></Identify>")
        start, since = 0, query.get("from", "")
        if "resumptionToken" in query:
            assert set(query) == {"verb", "resumptionToken"}  # the token is an exclusive argument
            if not self.valid_tokens:
                return self.xml('<error code="badResumptionToken">expired</error>')
            start, since = int(query["resumptionToken"].split("|")[0]), query[
                "resumptionToken"].split("|")[1]
        else:
            assert query["metadataPrefix"] == "lido"
        names = sorted(n for n, date in self.changed.items() if date >= since)
        if not names:
            return self.xml('<error code="noRecordsMatch">nothing</error>')
        rows = []
        for name in names[start:start + 2]:
            status = ' status="deleted"' if name in self.deleted else ""
            body = "" if status else f"<metadata><x>{name}</x></metadata>"
            rows.append(f"<record><header{status}><identifier>{name}</identifier><datestamp>"
                        f"{self.changed[name]}</datestamp></header>{body}</record>")
        more = start + 2 < len(names)
        token = (f'<resumptionToken completeListSize="{len(names)}" cursor="{start}">'
                 f"{f'{start + 2}|{since}' if more else ''}</resumptionToken>")
        return self.xml(f"<ListRecords>{''.join(rows)}{token}</ListRecords>")

    def xml(self, body: str) -> Any:
        return self.answer(f'<?xml version="1.0"?><OAI-PMH xmlns="http://www.openarchives.org/OAI'
                           f'/2.0/"><responseDate>{self.now}</responseDate><request/>{body}'
                           f"</OAI-PMH>".encode(), headers={"Content-Type": "text/xml"})


def _answer(website: Any) -> Any:
    website.file("/_", b"")
    return website.pages["/_"]


def harvest(fetch: Fetcher, address: str, **options: Any) -> list[str]:
    return list(oai_pmh.harvest(fetch, address, lambda e, name: {"text": "".join(e.itertext())},
                                prefix="lido", **options))


def store(folder: Path) -> Fetcher:
    return Fetcher(folder, Manners(per_second=500, back_off=0.01, tries=2))


def test_a_harvest_and_what_changed_since(tmp_path: Path, website: Any) -> None:
    repository = Repository(website)
    with store(tmp_path) as fetch:
        assert len(harvest(fetch, repository.address)) == 5
        found = oai_pmh.harvested(fetch, repository.address, prefix="lido")
        assert found["oai:m:3"] == {"text": "oai:m:3"} and len(found) == 5
    before = len(website.asked)
    with store(tmp_path) as fetch:
        assert harvest(fetch, repository.address) == []
    assert len(website.asked) == before + 1
    assert website.asked[-1].query["from"] == "2026-01-02T00:00:00Z"
    repository.now = "2026-01-05T00:00:00Z"
    repository.changed |= {"oai:m:1": "2026-01-04T00:00:00Z", "oai:m:9": "2026-01-04T00:00:00Z"}
    repository.deleted.add("oai:m:1")
    with store(tmp_path) as fetch:
        assert harvest(fetch, repository.address) == ["oai:m:1", "oai:m:9"]
        found = oai_pmh.harvested(fetch, repository.address, prefix="lido")
    assert sorted(found) == ["oai:m:0", "oai:m:2", "oai:m:3", "oai:m:4", "oai:m:9"]
    with store(tmp_path) as fetch:
        assert len(harvest(fetch, repository.address, anew=True)) == 6
        assert len(oai_pmh.harvested(fetch, repository.address, prefix="lido")) == 5


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_harvest_that_was_cut_off_goes_on(tmp_path: Path, website: Any,
                                            forgotten: bool) -> None:
    repository = Repository(website)
    good, pages = repository.page, []

    def fails_at_the_second(asked: Any) -> Any:
        pages.append(asked)
        token = asked.query.get("resumptionToken", "")
        return repository.answer(b"", 503) if token.startswith("2") else good(asked)

    website.pages["/oai"] = fails_at_the_second
    with store(tmp_path) as fetch, pytest.raises(FetchError, match="503"):
        harvest(fetch, repository.address)
    website.pages["/oai"] = good

    def forgets_once(asked: Any) -> Any:
        repository.valid_tokens = "resumptionToken" not in asked.query
        answer = good(asked)
        repository.valid_tokens = True
        website.pages["/oai"] = good
        return answer

    if forgotten:
        website.pages["/oai"] = forgets_once
    before = len(website.asked)
    with store(tmp_path) as fetch:
        arrived = harvest(fetch, repository.address)
        assert len(oai_pmh.harvested(fetch, repository.address, prefix="lido")) == 5
    assert len(arrived) == (5 if forgotten else 3)
    first = website.asked[before].query
    assert first["resumptionToken"].startswith("2")


def test_errors_of_a_repository(tmp_path: Path, website: Any) -> None:
    repository = Repository(website)
    website.pages["/oai"] = repository.xml('<error code="cannotDisseminateFormat">no lido</error>')
    with store(tmp_path) as fetch:
        with pytest.raises(FetchError, match="cannotDisseminateFormat: no lido"):
            harvest(fetch, repository.address)
        website.file("/oai", b"<html><p>hello")
        with pytest.raises(FetchError, match="expected XML of OAI-PMH"):
            harvest(fetch, repository.address)


def record(url: str) -> dict[str, Any]:
    """As the Record API writes it."""
    return {"success": True, "object": {
        "about": "/09102/_UEDIN_214", "title": ["Kit"],
        "aggregations": [{
            "about": "/aggregation/provider/09102/_UEDIN_214",
            "edmIsShownBy": f"{url}/214c.jpg", "hasView": [f"{url}/214d.jpg", f"{url}/214.mp3"],
            "edmRights": {"def": ["http://creativecommons.org/licenses/by-nc-sa/4.0/"]},
            "edmDataProvider": {"en": ["University of Edinburgh"]},
            "webResources": [
                {"about": f"{url}/214c.jpg", "ebucoreHasMimeType": "image/jpeg"},
                {"about": f"{url}/214d.jpg", "ebucoreHasMimeType": "image/jpeg",
                 "webResourceEdmRights": {"def": ["http://rightsstatements.org/vocab/InC/1.0/"]}},
                {"about": f"{url}/214.mp3", "ebucoreHasMimeType": "audio/mpeg"}]}],
        "concepts": [{"about": "http://www.mimo-db.eu/InstrumentsKeywords/3573",
                      "prefLabel": {"de": ["Violine"], "en": ["Violin"]}},
                     {"about": "http://vocab.getty.edu/aat/300041620", "prefLabel": {"en": ["x"]}}],
        "proxies": [
            {"about": "/proxy/europeana/09102/_UEDIN_214", "europeanaProxy": True},
            {"about": "/proxy/provider/09102/_UEDIN_214", "europeanaProxy": False,
             "dcTitle": {"en": ["Kit"]}, "dcCreator": {"def": ["http://viaf.example/1", "Anon"]},
             "dcIdentifier": {"def": ["214"]}, "dctermsCreated": {"en": ["circa 1700"]},
             "dcType": {"def": ["http://www.mimo-db.eu/InstrumentsKeywords/3573"]}}]}}


def test_a_record_of_europeana() -> None:
    found = europeana.parse(record("https://m.example"), "u")
    assert found == MuseumObject(
        "/09102/_UEDIN_214", ("3573",), ("Violin", "Violine"),
        (Picture("https://m.example/214c.jpg", "http://creativecommons.org/licenses/by-nc-sa/4.0/"
                                               "; University of Edinburgh"),
         Picture("https://m.example/214d.jpg", "http://rightsstatements.org/vocab/InC/1.0/"
                                               "; University of Edinburgh")),
        {"title": "Kit", "maker": "Anon", "date": "circa 1700", "inventory": "214",
         "institution": "University of Edinburgh"}, "https://www.europeana.eu/item/09102/_UEDIN_214")
    with pytest.raises(FetchError, match="Europeana refuses: Invalid API key"):
        europeana.parse({"success": False, "error": "Invalid API key"}, "u")


def test_a_search_walks_the_cursor(tmp_path: Path, website: Any) -> None:
    import json

    website.file("/_", b"")
    answer = type(website.pages["/_"])

    def page(asked: Any) -> Any:
        assert asked.query["query"].startswith('proxy_dc_type:"http://www.mimo-db.eu/Instr')
        assert asked.query["media"] == "true" and asked.query["rows"] == "100"
        following = {"*": "AoE+/x", "AoE+/x": None}[asked.query["cursor"]]
        start = 0 if following else 2
        return answer(json.dumps({
            "success": True, "items": [{"id": f"/1/{n}"} for n in range(start, start + 2)],
            "totalResults": 4, **({"nextCursor": following} if following else {})}).encode())

    website.pages["/record/v2/search.json"] = page
    with store(tmp_path) as fetch:
        def found(most: int | None = None) -> list[str]:
            return list(europeana.search(fetch, europeana.query_of_keyword("3573"), most=most,
                                         address=website.url))
        assert found() == ["/1/0", "/1/1", "/1/2", "/1/3"]
        assert found(3) == ["/1/0", "/1/1", "/1/2"]
