"""Invented notes and answers, each with the sentences that the answer leans on; no real patient is \
meant."""

CARDIAC = """Discharge Summary

Patient: 58-year-old woman with crushing chest pain for two hours.

History: She smokes 20 cigarettes a day and has high blood pressure. Her father had a myocardial \
infarction at 52.

Findings:
- The electrocardiogram showed ST elevation in leads II, III and aVF.
- Troponin T was 1.8 ng/mL on arrival and 4.2 ng/mL after six hours.
- Echocardiography revealed an ejection fraction of 45 % with inferior hypokinesia.

Hospital Course: Dr. Lindqvist placed one drug-eluting stent in the right coronary artery on \
03/14/2022. On day 3 she had a short run of ventricular tachycardia, which ended by itself. No bleeding \
occurred at the puncture site.

Discharge medications: aspirin 100 mg daily, ticagrelor 90 mg twice daily, atorvastatin 80 mg at night.

Follow-up: A visit to the cardiology clinic is planned in 6 weeks. She was told to stop smoking.
"""
KNEE = """OPERATION PERFORMED:,  Left total knee replacement.,COMPLICATIONS:,  None.,HOSPITAL COURSE:,  \
The patient is a 71-year-old retired teacher with severe osteoarthrosis.  Tranexamic acid was given \
before the incision.  Blood loss was 350 mL.  He walked with two crutches on the second postoperative \
day.,DISCHARGE INSTRUCTIONS:,1.  Enoxaparin 40 mg under the skin for 28 days.,2.  No driving for six \
weeks.,3.  Wound clips come out on the 12th day."""
CHILD = """Reason for visit: A 4-year-old boy with barking cough and stridor since last night 🌙, \
temperature 38.6 °C.
Examination: Inspiratory stridor at rest, mild chest retractions, oxygen saturation 95 % on room air. \
No rash was seen.
Treatment: One oral dose of dexamethasone 0.6 mg/kg and nebulised adrenaline. The stridor had gone \
after 40 minutes.
Plan: The parents will bring him back if he drools or turns blue. Vaccinations are complete according \
to his booklet.
"""
KIDNEY = """Diagnosis: IgA nephropathy, proven by biopsy. Creatinine rose from 1.1 mg/dL in May to 1.9 \
mg/dL in September.
The urine held 2.4 g of protein per day. Ramipril was raised to 10 mg; the blood pressure fell to \
128/76 mmHg.
A trial of prednisolone 60 mg was begun, and tapered over half a year because his sugar rose. He is a \
baker and works at night.
Ultrasound: both kidneys 10.5 cm long, no stone, no obstruction.
"""

PAIRS: list[tuple[str, str, list[str]]] = [
    (CARDIAC, "The ejection fraction was 45 %.", ["Echocardiography revealed"]),
    (
        CARDIAC,
        "She received a drug-eluting stent in the right coronary artery.",
        ["Hospital Course: Dr. Lindqvist"],
    ),
    (CARDIAC, "The stent was placed on March 14, 2022.", ["Hospital Course: Dr. Lindqvist"]),
    (CARDIAC, "Troponin rose from 1.8 to 4.2 ng/mL.", ["Troponin T was 1.8"]),
    (CARDIAC, "Her father suffered a myocardial infarction at the age of 52.", ["Her father had"]),
    (CARDIAC, "Aspirin, ticagrelor and atorvastatin.", ["Discharge medications: aspirin"]),
    (CARDIAC, "She had ventricular tachycardia on the third day.", ["On day 3 she had"]),
    (
        CARDIAC,
        "ST elevations were seen in the inferior leads II, III and aVF.",
        ["The electrocardiogram showed"],
    ),
    (CARDIAC, "She was advised to quit smoking.", ["She was told to stop smoking."]),
    (CARDIAC, "The puncture site did not bleed.", ["No bleeding occurred"]),
    (
        CARDIAC,
        "She smokes 20 cigarettes daily. The cardiology clinic will see her in 6 weeks.",
        ["History: She smokes", "Follow-up: A visit"],
    ),
    (KNEE, "The blood loss was 350 mL.", ["Blood loss was 350 mL."]),
    (KNEE, "Enoxaparin 40 mg for 28 days.", ["1.  Enoxaparin 40 mg"]),
    (KNEE, "A left total knee replacement was performed.", ["OPERATION PERFORMED:"]),
    (KNEE, "Tranexamic acid was given before the cut.", ["Tranexamic acid was given"]),
    (KNEE, "He should not drive for six weeks.", ["2.  No driving"]),
    (KNEE, "The clips are removed on day 12.", ["3.  Wound clips"]),
    (KNEE, "He is a retired teacher.", ["HOSPITAL COURSE:,"]),
    (CHILD, "The boy got dexamethasone and adrenaline.", ["Treatment: One oral dose"]),
    (CHILD, "Oxygen saturation was 95 %.", ["Examination: Inspiratory stridor"]),
    (CHILD, "He came with a barking cough and stridor.", ["Reason for visit"]),
    (CHILD, "After 40 minutes the stridor was gone.", ["The stridor had gone"]),
    (CHILD, "Yes, his vaccinations are complete.", ["Vaccinations are complete"]),
    (CHILD, "The parents should return if he turns blue or drools.", ["Plan: The parents"]),
    (KIDNEY, "The biopsy proved IgA nephropathy.", ["Diagnosis: IgA nephropathy"]),
    (KIDNEY, "Creatinine was 1.9 mg/dL in September.", ["Creatinine rose"]),
    (KIDNEY, "The patient works as a baker.", ["He is a baker"]),
    (KIDNEY, "Each kidney was 10.5 cm long.", ["Ultrasound: both kidneys"]),
    (KIDNEY, "Daily protein in the urine was 2.4g.", ["The urine held"]),
    (KIDNEY, "The dose of ramipril is 10 mg.", ["Ramipril was raised"]),
]
"""(note, answer, how each sentence that it leans on begins)."""

UNSUPPORTED: list[tuple[str, str]] = [
    (CARDIAC, "The note does not mention an allergy to aspirin."),
    (CARDIAC, "There is no information on her kidney function."),
    (CARDIAC, "The patient was diagnosed with asthma and received salbutamol."),
    (CARDIAC, ""),
    (CARDIAC, "Yes."),
    (CARDIAC, "The patient."),
    (KNEE, "The creatinine was 0.9 mg/dL."),
    (KNEE, "The type of anesthesia is not specified."),
    (KNEE, "Cholecystectomy was carried out laparoscopically."),
    (CHILD, "It is unclear whether a chest radiograph was taken."),
    (CHILD, "An appendectomy was performed under general anesthesia."),
    (KIDNEY, "His weight at the last visit was 92.4 kg."),
    (KIDNEY, "The patient was discharged home."),
    ("", "Aspirin was given."),
    ("\n \n", "Aspirin was given."),
]
"""(note, answer) where no passage must be shown."""
